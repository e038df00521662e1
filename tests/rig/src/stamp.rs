//! Identifies the build of a file.

use std::fs;
use std::path::Path;

use crate::error::{At, Result};

/// Distinguishes builds of a file without reading it.
pub(crate) fn stamp(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).at("examine", path)?;
    Ok(format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()))
}
