//! The kernel's command line.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{strict, value_error::ValueError};

/// A command line of printable ASCII, possibly empty. Its length is checked for the specific kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandLine(String);

impl CommandLine {
    /// Console on COM1, reboot through the keyboard controller, which ends the guest, and immediate reboot on
    /// a panic.
    pub const DEFAULT: &'static str = "console=ttyS0 reboot=k panic=-1";

    /// The empty command line.
    pub(crate) const fn empty() -> CommandLine {
        CommandLine(String::new())
    }

    /// The text, without a terminating NUL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CommandLine {
    fn default() -> CommandLine {
        CommandLine(CommandLine::DEFAULT.to_owned())
    }
}

impl FromStr for CommandLine {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<CommandLine, ValueError> {
        match text.char_indices().find(|(_, c)| !matches!(c, ' '..='~')) {
            Some((offset, c)) => Err(ValueError::NotPrintable { offset, found: describe(c) }),
            None => Ok(CommandLine(text.to_owned())),
        }
    }
}

/// Describes a character that isn't allowed.
fn describe(c: char) -> String {
    match c {
        '\0' => "a NUL".to_owned(),
        '\n' => "a newline".to_owned(),
        c if c.is_ascii() => format!("the control character {:#04x}", u32::from(c)),
        c => format!("the non-ASCII character {c:?}"),
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for CommandLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CommandLine, D::Error> {
        strict::text(deserializer, "a command line such as \"console=ttyS0\"")
    }
}

impl JsonSchema for CommandLine {
    fn schema_name() -> Cow<'static, str> {
        "CommandLine".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A kernel command line of printable ASCII.",
            "type": "string",
            "pattern": "^[ -~]*$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<CommandLine>().unwrap_err().to_string()
    }

    #[test]
    fn cmdline_empty_is_accepted() {
        assert_eq!("".parse::<CommandLine>().unwrap().as_str(), "");
    }

    #[test]
    fn cmdline_default_is_acceptable() {
        assert_eq!(CommandLine::DEFAULT.parse(), Ok(CommandLine::default()));
    }

    #[test]
    fn cmdline_nul_names_the_byte() {
        assert_eq!(refusal("quiet\0"), "byte 5 is a NUL, use printable ASCII only");
    }

    #[test]
    fn cmdline_newline_names_the_byte() {
        assert_eq!(refusal("a\nb"), "byte 1 is a newline, use printable ASCII only");
    }

    #[test]
    fn cmdline_control_character_shows_its_code() {
        assert_eq!(refusal("a\tb"), "byte 1 is the control character 0x09, use printable ASCII only");
        assert_eq!(refusal("\u{7f}"), "byte 0 is the control character 0x7f, use printable ASCII only");
    }

    #[test]
    fn cmdline_non_ascii_shows_the_character() {
        assert_eq!(refusal("root=é"), "byte 5 is the non-ASCII character 'é', use printable ASCII only");
    }
}
