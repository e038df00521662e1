//! Devices beyond those that every guest has.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess},
};
use serde_json::{Map, Value};

use crate::{
    number::Port,
    strict::{self, Found, Name, Reader},
    text::{hint, quote},
    unique::Unique,
    value_error::ValueError,
    virtio::{DeviceId, VirtioSection},
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
    /// A virtio device.
    #[serde(untagged)]
    #[schemars(skip)]
    Virtio(VirtioSection),
}

impl Device {
    /// The port that the guest finds it at, if it has one.
    pub const fn port(&self) -> Option<Port> {
        match self {
            Device::DebugConsole { port } | Device::DebugExit { port } | Device::PseudoSerial { port } => {
                Some(*port)
            }
            Device::Virtio(_) => None,
        }
    }

    /// The kinds that every machine knows.
    pub const KINDS: [&'static str; 3] = Kind::NAMES;
}

/// Where Bochs has it, and QEMU's isa-debugcon by default.
fn debug_console_port() -> Port {
    Port::from(0xe9)
}

/// Where kvm-unit-tests and most hobby kernels put QEMU's isa-debug-exit.
fn debug_exit_port() -> Port {
    Port::from(0xf4)
}

/// Gives the `type` of each device the description that its derived schema lacks. The types exclude each other, which the
/// derived schema doesn't know.
fn describe_type(schema: &mut Schema) {
    if let Some(variants) = schema.remove("anyOf") {
        schema.insert("oneOf".to_owned(), variants);
    }
    let variants = schema.get_mut("oneOf").and_then(|variants| variants.as_array_mut());
    for variant in variants.into_iter().flatten() {
        variant["properties"]["type"]["description"] = "The kind of device.".into();
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Device, D::Error> {
        strict::read(deserializer, DeviceReader)
    }
}

struct DeviceReader;

impl<'de> Reader<'de> for DeviceReader {
    type Value = Device;

    fn scalar(self, found: Found<'_>) -> Result<Device, ValueError> {
        Err(found.instead_of("an object such as {\"type\": \"debug-console\"}"))
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Device, A::Error> {
        let mut section = DeviceSection::default();
        while let Some(name) = members.next_key_seed(Name(|name: &str| section.check_next(name)))? {
            match name.as_str() {
                "type" => section.kind = Some(members.next_value()?),
                "id" => section.id = Some(members.next_value()?),
                "port" => section.port = Some(members.next_value()?),
                _ => {
                    let Unique(value) = members.next_value()?;
                    section.fields.insert(name, value);
                }
            }
        }
        section.try_into().map_err(A::Error::custom)
    }
}

/// A device as it is written, whole or not.
#[derive(Default)]
struct DeviceSection {
    kind: Option<Kind>,
    id: Option<DeviceId>,
    port: Option<Port>,
    fields: Map<String, Value>,
}

impl DeviceSection {
    fn has(&self, name: &str) -> bool {
        match name {
            "type" => self.kind.is_some(),
            "id" => self.id.is_some(),
            "port" => self.port.is_some(),
            other => self.fields.contains_key(other),
        }
    }

    /// Whether its next field may have this name.
    fn check_next(&self, name: &str) -> Result<(), ValueError> {
        if self.has(name) {
            return Err(ValueError::GivenTwice);
        }
        if !self.may_have(name) {
            let hint = match self.kind {
                Some(Kind::Virtio(_)) => "a virtio device has no port".to_owned(),
                _ => hint(name, FIELDS),
            };
            return Err(ValueError::UnknownField { hint });
        }
        Ok(())
    }

    /// Whether it may have a field of this name, as far as it is known yet.
    fn may_have(&self, name: &str) -> bool {
        match &self.kind {
            _ if name == "type" => true,
            None => true,
            Some(Kind::Virtio(_)) => name != "port",
            Some(_) => name == "port",
        }
    }
}

/// Fields of a device with ports.
const FIELDS: &[&str] = &["type", "port"];

impl TryFrom<DeviceSection> for Device {
    type Error = ValueError;

    fn try_from(section: DeviceSection) -> Result<Device, ValueError> {
        let kind = section.kind.ok_or_else(|| ValueError::Incomplete {
            missing: "\"type\"",
            give: "the kind of device, such as \"block\"".to_owned(),
        })?;
        // What came in front of the type.
        let early = section.fields.keys().map(String::as_str).chain(section.id.is_some().then_some("id"));
        match (&kind, early.into_iter().next(), section.port) {
            (Kind::Virtio(_), _, Some(_)) => {
                return Err(ValueError::Unused {
                    name: quote("port"),
                    hint: "a virtio device has no port".to_owned(),
                });
            }
            (Kind::DebugConsole | Kind::DebugExit | Kind::PseudoSerial, Some(name), _) => {
                return Err(ValueError::Unused { name: quote(name), hint: hint(name, FIELDS) });
            }
            _ => {}
        }
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
            Kind::Virtio(kind) => Device::Virtio(VirtioSection {
                kind,
                id: section.id,
                fields: section.fields,
                directory: PathBuf::new(),
            }),
        })
    }
}

/// What `type` says.
enum Kind {
    DebugConsole,
    DebugExit,
    PseudoSerial,
    /// None of ours, so one of the machine's table, or a mistake; only the machine knows.
    Virtio(String),
}

impl Kind {
    /// In the order of the documentation.
    const NAMES: [&'static str; 3] = ["debug-console", "debug-exit", "pseudo-serial"];
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        strict::value(deserializer, |found| match found {
            Found::Text("debug-console") => Ok(Kind::DebugConsole),
            Found::Text("debug-exit") => Ok(Kind::DebugExit),
            Found::Text("pseudo-serial") => Ok(Kind::PseudoSerial),
            Found::Text(name) => Ok(Kind::Virtio(name.to_owned())),
            other => Err(other.instead_of("a device such as \"debug-console\"")),
        })
    }
}
