//! The transport of virtio devices: how registers and interrupts reach the guest.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{strict, text::hint, value_error::ValueError};

/// The transport of virtio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// PCI functions with MSI-X interrupts.
    Pci,
    /// Memory-mapped registers, and an interrupt line for each device.
    Mmio,
}

impl Transport {
    /// All values, in the order of the documentation.
    pub const ALL: [Transport; 2] = [Transport::Pci, Transport::Mmio];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Pci => "pci",
            Transport::Mmio => "mmio",
        }
    }
}

impl FromStr for Transport {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Transport, ValueError> {
        let names = Transport::ALL.map(Transport::name);
        Transport::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| ValueError::UnknownName {
            what: "transport",
            name: text.to_owned(),
            hint: hint(text, &names),
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Transport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Transport, D::Error> {
        strict::text(deserializer, "a transport such as \"pci\"")
    }
}
