//! Devices beyond those that every guest has.

use std::str::FromStr;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    error::ValueError,
    number::Port,
    strict,
    text::{hint, quoted},
};

/// A device beyond those that every guest has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = describe_type)]
pub enum Device {
    /// QEMU's isa-debugcon: a byte written to the port is printed, and a byte read from it is 0xe9.
    DebugConsole {
        /// Its port.
        #[serde(default = "debug_console_port")]
        port: Port,
    },
    /// QEMU's isa-debug-exit: a write of v to the port ends the guest with the exit code (v << 1) | 1. It has four ports.
    DebugExit {
        /// Its port.
        #[serde(default = "debug_exit_port")]
        port: Port,
    },
    /// A byte port for output only: what is written to it is printed.
    PseudoSerial {
        /// Its port.
        port: Port,
    },
}

impl Device {
    /// The port that the guest finds it at.
    pub const fn port(&self) -> Port {
        match self {
            Device::DebugConsole { port } | Device::DebugExit { port } | Device::PseudoSerial { port } => {
                *port
            }
        }
    }
}

/// Where Bochs has it, and QEMU's isa-debugcon by default.
fn debug_console_port() -> Port {
    Port::from(0xe9)
}

/// Where kvm-unit-tests and most hobby kernels put QEMU's isa-debug-exit.
fn debug_exit_port() -> Port {
    Port::from(0xf4)
}

/// Gives the `type` of each device the description that its derived schema lacks.
fn describe_type(schema: &mut Schema) {
    let variants = schema.get_mut("oneOf").and_then(|variants| variants.as_array_mut());
    for variant in variants.into_iter().flatten() {
        variant["properties"]["type"]["description"] = "The kind of device.".into();
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Device, D::Error> {
        strict::checked::<_, DeviceSection, _>(
            deserializer,
            "an object such as {\"type\": \"debug-console\"}",
        )
    }
}

/// A device as it is written, whole or not.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeviceSection {
    #[serde(rename = "type", deserialize_with = "strict::present")]
    kind: Option<Kind>,
    #[serde(deserialize_with = "strict::present")]
    port: Option<Port>,
}

impl TryFrom<DeviceSection> for Device {
    type Error = ValueError;

    fn try_from(section: DeviceSection) -> Result<Device, ValueError> {
        let kind = section.kind.ok_or_else(|| ValueError::Incomplete {
            missing: "\"type\"",
            give: format!("one of {}", quoted(&Kind::ALL.map(Kind::name))),
        })?;
        Ok(match kind {
            Kind::DebugConsole => {
                Device::DebugConsole { port: section.port.unwrap_or_else(debug_console_port) }
            }
            Kind::DebugExit => Device::DebugExit { port: section.port.unwrap_or_else(debug_exit_port) },
            Kind::PseudoSerial => {
                let give = "the port of the pseudo-serial, such as \"0xf1\"".to_owned();
                let port = section.port.ok_or(ValueError::Incomplete { missing: "\"port\"", give })?;
                Device::PseudoSerial { port }
            }
        })
    }
}

/// What `type` says.
#[derive(Clone, Copy)]
enum Kind {
    DebugConsole,
    DebugExit,
    PseudoSerial,
}

impl Kind {
    /// In the order of the documentation.
    const ALL: [Kind; 3] = [Kind::DebugConsole, Kind::DebugExit, Kind::PseudoSerial];

    const fn name(self) -> &'static str {
        match self {
            Kind::DebugConsole => "debug-console",
            Kind::DebugExit => "debug-exit",
            Kind::PseudoSerial => "pseudo-serial",
        }
    }
}

impl FromStr for Kind {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Kind, ValueError> {
        let names = Kind::ALL.map(Kind::name);
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| ValueError::UnknownName {
            what: "device",
            name: text.to_owned(),
            hint: hint(text, &names),
        })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        strict::text(deserializer, "a device such as \"debug-console\"")
    }
}
