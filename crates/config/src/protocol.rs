//! The kernel's entry protocol.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{strict, text::hint, value_error::ValueError};

/// The kernel's entry protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Depending on the kernel file.
    #[default]
    Auto,
    /// The 64-bit entry of the Linux boot protocol.
    Linux64,
    /// The 32-bit entry of the Linux boot protocol, for a bzImage.
    Linux32,
    /// The PVH entry point in an ELF note.
    Pvh,
}

impl Protocol {
    /// All protocols, in the order of the documentation.
    pub const ALL: [Protocol; 4] = [Protocol::Auto, Protocol::Linux64, Protocol::Linux32, Protocol::Pvh];

    /// The name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Auto => "auto",
            Protocol::Linux64 => "linux64",
            Protocol::Linux32 => "linux32",
            Protocol::Pvh => "pvh",
        }
    }
}

impl FromStr for Protocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Protocol, ValueError> {
        let names = Protocol::ALL.map(Protocol::name);
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == text).ok_or_else(|| {
            ValueError::UnknownName { what: "protocol", name: text.to_owned(), hint: hint(text, &names) }
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
        strict::text(deserializer, "a protocol such as \"auto\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_swapped_digits_names_the_nearest() {
        let error = "linux46".parse::<Protocol>().unwrap_err();
        assert_eq!(error.to_string(), "unknown protocol \"linux46\", did you mean \"linux64\"?");
    }

    #[test]
    fn protocol_nothing_near_lists_all() {
        let error = "efi".parse::<Protocol>().unwrap_err();
        let expected = r#"unknown protocol "efi", expected one of "auto", "linux64", "linux32", "pvh""#;
        assert_eq!(error.to_string(), expected);
    }
}
