//! Caches before a measurement.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Reads files to their end, so that nobody pays for a cold cache.
pub(super) fn warm(paths: &[PathBuf]) -> Result<(), Failure> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()));
    paths.iter().try_for_each(|path| read(path).map(drop))?;
    Ok(())
}
