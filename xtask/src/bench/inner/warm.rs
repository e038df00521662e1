//! Warms the page cache before a measurement.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Reads all files to their end, so that no run has a cold cache.
pub(super) fn warm(paths: &[PathBuf]) -> Result<(), Failure> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()));
    paths.iter().try_for_each(|path| read(path).map(drop))?;
    Ok(())
}
