//! Host paths.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{strict, value_error::ValueError};

/// A syntactically valid path: non-empty and without a NUL. Whether it exists isn't checked.
///
/// In a `ConfigFile` it is as written; in a `Config` it is resolved, so that it depends only on the current
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Resolves the path relative to `directory`; an absolute path is unchanged.
    #[must_use]
    pub(crate) fn within(self, directory: &Path) -> FilePath {
        // Neither an empty directory nor a join can make the path empty.
        FilePath(directory.join(self.0))
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<&OsStr> for FilePath {
    type Error = ValueError;

    fn try_from(text: &OsStr) -> Result<FilePath, ValueError> {
        if text.is_empty() {
            return Err(ValueError::EmptyPath);
        }
        match text.as_bytes().iter().position(|byte| *byte == 0) {
            Some(offset) => Err(ValueError::NulInPath { offset }),
            None => Ok(FilePath(PathBuf::from(text))),
        }
    }
}

impl FromStr for FilePath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<FilePath, ValueError> {
        FilePath::try_from(OsStr::new(text))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// JSON is text: bytes that aren't UTF-8, which only a flag or the directory can contribute, become U+FFFD.
impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FilePath, D::Error> {
        strict::text(deserializer, "a path such as \"dir/file\"")
    }
}

impl JsonSchema for FilePath {
    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A host path; a relative one starts at the directory of the config file.",
            "type": "string",
            "minLength": 1,
            "pattern": "^[^\\u0000]+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_empty_is_refused() {
        assert_eq!("".parse::<FilePath>().unwrap_err().to_string(), "the path is empty, name a file");
    }

    #[test]
    fn path_with_nul_names_the_byte() {
        assert_eq!(
            "a\0b".parse::<FilePath>().unwrap_err().to_string(),
            "byte 1 of the path is a NUL, remove it"
        );
    }

    #[test]
    fn path_not_utf8_is_kept_as_it_is() {
        let raw = OsStr::from_bytes(b"vm/\xff");
        assert_eq!(FilePath::try_from(raw).unwrap().as_path(), Path::new(raw));
    }
}
