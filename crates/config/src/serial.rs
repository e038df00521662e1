//! Where the serial console is connected.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess},
};

use crate::{
    path::FilePath,
    strict::{self, Key, Reader, ShallowValue},
    text::{expected, hint},
    value_error::ValueError,
};

/// Where the first serial port, COM1, is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Serial {
    /// Standard input and output of the monitor.
    #[default]
    Stdio,
    /// A new pseudo-terminal, whose path is printed.
    Pty,
    /// Nowhere: output is dropped, and there is no input.
    None,
    /// A file for output; no input.
    File(FilePath),
    /// A Unix socket to which clients connect.
    Socket(FilePath),
}

/// Names without a value.
const PLAIN: [&str; 3] = ["stdio", "pty", "none"];
/// Names with a path.
const WITH_PATH: [&str; 2] = ["file", "socket"];
/// All names.
const ALL: [&str; 5] = ["stdio", "pty", "none", "file", "socket"];

impl Serial {
    /// Resolves its path relative to `directory`.
    #[must_use]
    pub(crate) fn within(self, directory: &Path) -> Serial {
        match self {
            Serial::File(path) => Serial::File(path.within(directory)),
            Serial::Socket(path) => Serial::Socket(path.within(directory)),
            other => other,
        }
    }

    /// Parses the command line's notation: a plain name, `file:PATH` or `socket:PATH`.
    pub(crate) fn from_flag(text: &OsStr) -> Result<Serial, ValueError> {
        let bytes = text.as_bytes();
        let path = |rest| FilePath::try_from(OsStr::from_bytes(rest));
        if let Some(rest) = bytes.strip_prefix(b"file:") {
            return path(rest).map(Serial::File);
        }
        if let Some(rest) = bytes.strip_prefix(b"socket:") {
            return path(rest).map(Serial::Socket);
        }
        let text =
            text.to_str().ok_or_else(|| ValueError::NotUtf8 { text: text.to_string_lossy().into_owned() })?;
        Serial::from_name(text, |name| format!("{name}:PATH"))
    }

    /// Parses a plain name; `like` formats the notation of a name with a path.
    fn from_name(text: &str, like: impl Fn(&str) -> String) -> Result<Serial, ValueError> {
        match text {
            "stdio" => Ok(Serial::Stdio),
            "pty" => Ok(Serial::Pty),
            "none" => Ok(Serial::None),
            name if WITH_PATH.contains(&name) => {
                Err(ValueError::NeedsPath { name: name.to_owned(), like: like(name) })
            }
            name => {
                let near = hint(name, &ALL);
                let paths = WITH_PATH.map(&like).join(" or ");
                let all = format!("{}, {paths}", expected(&PLAIN));
                let hint = if near.starts_with("did") { near } else { all };
                Err(ValueError::UnknownName { what: "serial output", name: name.to_owned(), hint })
            }
        }
    }
}

/// The JSON notation of an output with a path.
fn json_like(name: &str) -> String {
    format!("{{\"{name}\": PATH}}")
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Serial::Stdio => f.write_str("stdio"),
            Serial::Pty => f.write_str("pty"),
            Serial::None => f.write_str("none"),
            Serial::File(path) => write!(f, "file:{path}"),
            Serial::Socket(path) => write!(f, "socket:{path}"),
        }
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Serial, D::Error> {
        strict::read(deserializer, SerialReader)
    }
}

/// A name, or an object with exactly one member.
struct SerialReader;

impl<'de> Reader<'de> for SerialReader {
    type Value = Serial;

    fn scalar(self, found: ShallowValue<'_>) -> Result<Serial, ValueError> {
        match found {
            ShallowValue::Text(name) => Serial::from_name(name, json_like),
            other => Err(other
                .instead_of("one of \"stdio\", \"pty\", \"none\", {\"file\": PATH} or {\"socket\": PATH}")),
        }
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Serial, A::Error> {
        let mut seen = Vec::new();
        let Some(name) = map.next_key_seed(Key { names: &WITH_PATH, beside: &[], seen: &mut seen })? else {
            let expected = WITH_PATH.map(json_like).join(" or ");
            return Err(A::Error::custom(ValueError::WrongType {
                expected,
                found: "an empty object".to_owned(),
            }));
        };
        let path = map.next_value()?;
        if let Some(second) = map.next_key_seed(Key { names: &WITH_PATH, beside: &[], seen: &mut seen })? {
            return Err(A::Error::custom(ValueError::Both(name, second)));
        }
        Ok(if name == "file" { Serial::File(path) } else { Serial::Socket(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> Result<Serial, String> {
        Serial::from_flag(OsStr::new(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn serial_flag_every_form_is_read_as_it_prints() {
        let printed = |text: &str| flag(text).map(|serial| serial.to_string());
        assert_eq!(printed("stdio").as_deref(), Ok("stdio"));
        assert_eq!(printed("pty").as_deref(), Ok("pty"));
        assert_eq!(printed("none").as_deref(), Ok("none"));
        assert_eq!(printed("file:a:b").as_deref(), Ok("file:a:b"));
        assert_eq!(printed("socket:s").as_deref(), Ok("socket:s"));
    }

    #[test]
    fn serial_flag_unknown_names_the_nearest() {
        assert_eq!(flag("stdoi"), Err("unknown serial output \"stdoi\", did you mean \"stdio\"?".to_owned()));
    }

    #[test]
    fn serial_flag_nothing_near_lists_all_forms() {
        let expected = r#"unknown serial output "tcp", expected one of "stdio", "pty", "none", file:PATH or socket:PATH"#;
        assert_eq!(flag("tcp"), Err(expected.to_owned()));
    }

    #[test]
    fn serial_flag_file_without_path_shows_the_form() {
        assert_eq!(flag("file"), Err("\"file\" needs a path, write file:PATH".to_owned()));
        assert_eq!(flag("file:"), Err("the path is empty, name a file".to_owned()));
    }

    #[test]
    fn serial_flag_path_may_be_any_bytes() {
        let serial = Serial::from_flag(OsStr::from_bytes(b"file:\xff")).unwrap();
        assert_eq!(serial, Serial::File(FilePath::try_from(OsStr::from_bytes(b"\xff")).unwrap()));
    }
}
