//! How a Linux kernel discovers its virtio devices: one way or the other, because a kernel that uses both would
//! find each device twice.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{strict, text::hint, value_error::ValueError};

/// How a Linux kernel discovers its virtio devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnnounceVirtio {
    /// Through the ACPI tables.
    #[default]
    Acpi,
    /// Through its command line, for kernels with VIRTIO_MMIO_CMDLINE_DEVICES and without ACPI.
    Cmdline,
}

impl AnnounceVirtio {
    /// All values, in the order of the documentation.
    pub const ALL: [AnnounceVirtio; 2] = [AnnounceVirtio::Acpi, AnnounceVirtio::Cmdline];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            AnnounceVirtio::Acpi => "acpi",
            AnnounceVirtio::Cmdline => "cmdline",
        }
    }
}

impl FromStr for AnnounceVirtio {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<AnnounceVirtio, ValueError> {
        let names = AnnounceVirtio::ALL.map(AnnounceVirtio::name);
        AnnounceVirtio::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| {
            ValueError::UnknownName { what: "way", name: text.to_owned(), hint: hint(text, &names) }
        })
    }
}

impl fmt::Display for AnnounceVirtio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl<'de> Deserialize<'de> for AnnounceVirtio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnnounceVirtio, D::Error> {
        strict::text(deserializer, "a method such as \"acpi\"")
    }
}
