//! Which build of a file this is.

use std::fs;
use std::path::Path;

use crate::error::{At, Result};

/// Tells one build of a file from another without reading it.
pub(crate) fn stamp(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).at("examine", path)?;
    Ok(format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()))
}
