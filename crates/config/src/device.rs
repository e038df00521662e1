//! Additional devices. Legacy devices that have flags are types here, so that flags and file are checked against each
//! other in one place; the fields of all others belong to the machine's tables of kinds.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess},
};
use serde_json::{Map, Value};

use crate::{
    number::Port,
    strict::{self, Name, Reader, ShallowValue},
    text::{hint, quote},
    unique::Unique,
    value_error::ValueError,
    virtio::{DeviceId, Slot, VirtioSection},
};

/// An additional device.
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
    /// A write-only byte port whose output is printed.
    PseudoSerial {
        /// Its port.
        port: Port,
    },
    /// A device of a kind that only the machine's tables have: a virtio device, or a legacy device beyond these three, which have
    /// flags and are known here for that.
    #[serde(untagged)]
    #[schemars(skip)]
    Virtio(VirtioSection),
}

impl Device {
    /// Its port, if it has one.
    pub const fn port(&self) -> Option<Port> {
        match self {
            Device::DebugConsole { port } | Device::DebugExit { port } | Device::PseudoSerial { port } => {
                Some(*port)
            }
            Device::Virtio(_) => None,
        }
    }

    /// The device's name. `None` for devices that are identified by their port.
    pub const fn id(&self) -> Option<&DeviceId> {
        match self {
            Device::DebugConsole { .. } | Device::DebugExit { .. } | Device::PseudoSerial { .. } => None,
            Device::Virtio(section) => section.id.as_ref(),
        }
    }

    /// Value of `type`, and the device's fields except that and `id`: the key into the machine's tables of kinds, and the
    /// kind's input.
    pub fn kind_and_fields(&self) -> (String, Value) {
        let mut fields =
            serde_json::to_value(self).expect("names are strings, and no value is of its own making");
        let object = fields.as_object_mut().expect("it is written as an object");
        object.remove("id");
        let kind = object.remove("type");
        (kind.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(), fields)
    }
}

/// Bochs's port, and the default of QEMU's isa-debugcon.
fn debug_console_port() -> Port {
    Port::from(0xe9)
}

/// The port of QEMU's isa-debug-exit in kvm-unit-tests and most hobby kernels.
fn debug_exit_port() -> Port {
    Port::from(0xf4)
}

/// Adds the description of each device's `type` that the derived schema lacks, and that the types exclude
/// each other.
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

    fn scalar(self, found: ShallowValue<'_>) -> Result<Device, ValueError> {
        Err(found.instead_of("an object such as {\"type\": \"debug-console\"}"))
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Device, A::Error> {
        let mut section = DeviceSection::default();
        while let Some(name) = members.next_key_seed(Name(|name: &str| section.check_next(name)))? {
            match name.as_str() {
                "type" => section.kind = Some(members.next_value()?),
                "id" => section.id = Some(members.next_value()?),
                "slot" if section.may_be_virtio() => section.slot = Some(members.next_value()?),
                "port" if section.may_be_ours() => section.port = Some(members.next_value()?),
                _ => {
                    let Unique(value) = members.next_value()?;
                    section.fields.insert(name, value);
                }
            }
        }
        section.try_into().map_err(A::Error::custom)
    }
}

/// A device as read, possibly incomplete.
#[derive(Default)]
struct DeviceSection {
    kind: Option<Kind>,
    id: Option<DeviceId>,
    slot: Option<Slot>,
    port: Option<Port>,
    fields: Map<String, Value>,
}

impl DeviceSection {
    fn has(&self, name: &str) -> bool {
        match name {
            "type" => self.kind.is_some(),
            "id" => self.id.is_some(),
            "slot" => self.slot.is_some() || self.fields.contains_key("slot"),
            "port" => self.port.is_some() || self.fields.contains_key("port"),
            other => self.fields.contains_key(other),
        }
    }

    /// Whether the next field may have this name.
    fn check_next(&self, name: &str) -> Result<(), ValueError> {
        if self.has(name) {
            return Err(ValueError::GivenTwice);
        }
        if !self.may_have(name) {
            return Err(ValueError::UnknownField { hint: hint(name, FIELDS) });
        }
        Ok(())
    }

    /// Whether its port is an I/O port, as far as known.
    fn may_be_ours(&self) -> bool {
        !matches!(self.kind, Some(Kind::Virtio(_)))
    }

    /// Whether it is none of the types here, as far as known.
    fn may_be_virtio(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Virtio(_)))
    }

    /// Whether a field of this name is allowed, as far as known.
    fn may_have(&self, name: &str) -> bool {
        match &self.kind {
            _ if name == "type" => true,
            None => true,
            Some(Kind::Virtio(_)) => true,
            Some(_) => name == "port",
        }
    }
}

/// Fields of a device with a port.
const FIELDS: &[&str] = &["type", "port"];

impl TryFrom<DeviceSection> for Device {
    type Error = ValueError;

    fn try_from(mut section: DeviceSection) -> Result<Device, ValueError> {
        let kind = section.kind.ok_or_else(|| ValueError::Incomplete {
            missing: "\"type\"",
            give: "the kind of device, such as \"block\"".to_owned(),
        })?;
        // Fields that preceded the type.
        let early = section.fields.keys().map(String::as_str).chain(section.id.is_some().then_some("id"));
        let early = early.chain(section.slot.is_some().then_some("slot"));
        match (&kind, early.into_iter().next()) {
            (Kind::Virtio(_), _) => {
                let early = section.port.map(|port| ("port".to_owned(), port.to_string().into()));
                section.fields.extend(early);
            }
            (_, Some(name)) => {
                return Err(ValueError::Unused { name: quote(name), hint: hint(name, FIELDS) });
            }
            (_, None) => {}
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
                slot: section.slot,
                fields: section.fields,
                directory: PathBuf::new(),
            }),
        })
    }
}

/// Value of `type`.
enum Kind {
    DebugConsole,
    DebugExit,
    PseudoSerial,
    /// Not a built-in kind: one of the machine's tables, or an error. Only the machine knows.
    Virtio(String),
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        strict::value(deserializer, |found| match found {
            ShallowValue::Text("debug-console") => Ok(Kind::DebugConsole),
            ShallowValue::Text("debug-exit") => Ok(Kind::DebugExit),
            ShallowValue::Text("pseudo-serial") => Ok(Kind::PseudoSerial),
            ShallowValue::Text(name) => Ok(Kind::Virtio(name.to_owned())),
            other => Err(other.instead_of("a device such as \"debug-console\"")),
        })
    }
}
