//! The static description of a legacy device: which machines have it, its ports, ACPI description and constructor.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vmm_config::{FieldError, Port};

use crate::{AcpiParts, BuiltDevice, Wiring};

/// The static description of a legacy device, in the same file as its registers. It is all that the rest of the workspace knows
/// about the device: its ports and interrupt in the plan, its ACPI description, its `type` and fields in the config, and its
/// constructor.
pub trait LegacyKind: 'static {
    /// Name in the plan and in messages, such as "debug console".
    const NAME: &'static str;
    /// Which machines have the device.
    const PRESENCE: Presence;
    /// The device's fields in the config, without `type` and `id`. Must reject unknown fields. [`NoFields`](crate::NoFields) for a
    /// kind that isn't [`Listed`](Presence::Listed).
    type Config: DeserializeOwned + JsonSchema + Send + Sync;

    /// The device's ports and interrupt.
    fn place(config: &Self::Config) -> Place;

    /// Adds the device's ACPI description, on a machine with ACPI tables. Adds nothing by default, for devices whose ports guests
    /// know in advance. Object names must be unique in a machine: a kind that may be listed more than once derives them from
    /// `place`.
    ///
    /// # Errors
    /// ACPI can't express the description, for example an object name of five characters. This is a bug in the kind.
    fn describe(_place: &Place, _acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        Ok(())
    }

    /// Creates the device for one machine. After a reset, the next machine gets a new device.
    ///
    /// # Errors
    /// The host is out of a resource, such as file descriptors.
    fn build(config: &Self::Config, wiring: &mut Wiring) -> io::Result<BuiltDevice>;
}

/// Which machines have a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All machines.
    Always,
    /// Machines with ACPI tables.
    WithAcpi,
    /// Machines whose config lists it in `devices` with this `type`, one device per entry.
    Listed(&'static str),
}

/// A device's I/O ports and interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device's ports, at least one. A plan with a port above 0xffff is rejected.
    pub ports: Range<u64>,
    /// Global system interrupt, used on machines with interrupt controllers. Not shared with other devices.
    pub gsi: Option<u32>,
}

impl Place {
    /// These ports, without an interrupt.
    pub const fn ports(ports: Range<u64>) -> Self {
        Self { ports, gsi: None }
    }

    /// `count` ports from `first` on, such as a port set in the config, without an interrupt.
    pub fn ports_from(first: Port, count: u64) -> Self {
        let first = u64::from(first.get());
        Self::ports(first..first + count)
    }

    /// The same ports, with a global system interrupt.
    pub const fn with_gsi(self, gsi: u32) -> Self {
        // `..self` isn't possible here: a const function can't drop the remaining fields.
        let Self { ports, gsi: _ } = self;
        Self { ports, gsi: Some(gsi) }
    }

    /// Its registers' addresses, which on a PC are its ports.
    pub fn registers(&self) -> Range<u64> {
        self.ports.clone()
    }
}

/// Config of a kind whose port is configurable.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtPort {
    /// The device's port, or the first of several.
    pub port: Port,
}

/// An entry in a table of kinds.
#[derive(Clone, Copy)]
pub struct LegacyEntry {
    /// [`LegacyKind::NAME`].
    pub name: &'static str,
    /// [`LegacyKind::PRESENCE`].
    pub presence: Presence,
    plan: fn(&Value) -> Result<PlannedDevice, FieldError>,
    /// Generates the JSON schema of [`LegacyKind::Config`].
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl LegacyEntry {
    /// The entry of kind `K`.
    pub const fn of<K: LegacyKind>() -> Self {
        Self {
            name: K::NAME,
            presence: K::PRESENCE,
            plan: PlannedDevice::read::<K>,
            schema: <K::Config as JsonSchema>::json_schema,
        }
    }

    /// The `type` by which a config lists the kind, or `None` if it can't be listed.
    pub const fn listed_as(&self) -> Option<&'static str> {
        match self.presence {
            Presence::Listed(name) => Some(name),
            Presence::Always | Presence::WithAcpi => None,
        }
    }

    /// Reads a device's fields from the config, an object without `type` and `id`, and determines the device's place.
    ///
    /// # Errors
    /// A field is unknown, missing or invalid.
    pub fn plan(&self, fields: &Value) -> Result<PlannedDevice, FieldError> {
        (self.plan)(fields)
    }
}

impl fmt::Debug for LegacyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, presence, .. } = self;
        f.debug_struct("LegacyEntry").field("name", name).field("presence", presence).finish_non_exhaustive()
    }
}

/// A device that is configured but not created yet.
#[derive(Clone)]
pub struct PlannedDevice {
    /// [`LegacyKind::NAME`].
    pub name: &'static str,
    /// [`LegacyKind::PRESENCE`].
    pub presence: Presence,
    /// The device's ports and interrupt.
    pub place: Place,
    configured: Arc<dyn ConfiguredKind>,
}

impl PlannedDevice {
    fn read<K: LegacyKind>(fields: &Value) -> Result<Self, FieldError> {
        let config: K::Config = vmm_config::read_legacy_fields(fields)?;
        let place = K::place(&config);
        Ok(Self {
            name: K::NAME,
            presence: K::PRESENCE,
            place,
            configured: Arc::new(Configured::<K>(config)),
        })
    }

    /// Adds the device's ACPI description.
    ///
    /// # Errors
    /// As [`LegacyKind::describe`].
    pub fn describe(&self, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        self.configured.describe(&self.place, acpi)
    }

    /// Creates the device.
    ///
    /// # Errors
    /// As [`LegacyKind::build`].
    pub fn build(&self, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        self.configured.build(wiring)
    }
}

impl fmt::Debug for PlannedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedDevice")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A kind with its config, whose type is erased.
trait ConfiguredKind: Send + Sync {
    fn describe(&self, place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error>;
    fn build(&self, wiring: &mut Wiring) -> io::Result<BuiltDevice>;
}

struct Configured<K: LegacyKind>(K::Config);

impl<K: LegacyKind> ConfiguredKind for Configured<K> {
    fn describe(&self, place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        K::describe(place, acpi)
    }

    fn build(&self, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        K::build(&self.0, wiring)
    }
}
