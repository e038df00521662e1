//! A kind of legacy device: which machines have it, where it is found, what it says in ACPI, and how it comes to be.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vmm_config::{FieldError, Port};

use crate::{AcpiParts, Built, Wiring};

/// What is static of a legacy device, declared beside its registers. All that the rest of the workspace knows of it follows from
/// this: its ports and its interrupt in the plan, its object in ACPI, its `type` and its fields in the config, and the device
/// itself.
pub trait LegacyKind: 'static {
    /// What the plan and messages call it, such as "debug console".
    const NAME: &'static str;
    /// Which machines have it.
    const PRESENCE: Presence;
    /// Its fields in the config, beside `type` and `id`; it refuses unknown ones. [`NoFields`](crate::NoFields) for a kind that isn't listed there.
    type Config: DeserializeOwned + JsonSchema + Send + Sync;

    /// Where the guest finds it.
    fn place(config: &Self::Config) -> Place;

    /// Adds what an operating system has to know of it, on a machine with ACPI tables. Many devices say nothing: a guest that
    /// wants them knows their ports. Objects have names of their own in a machine: a kind that may be listed twice makes them of
    /// its place.
    ///
    /// # Errors
    /// It can't be said in ACPI, such as a name of five characters: a defect of the kind.
    fn describe(_place: &Place, _acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        Ok(())
    }

    /// Makes the device, for one machine: a machine that follows a reset has a new one.
    ///
    /// # Errors
    /// The host is out of something.
    fn build(config: &Self::Config, wiring: &mut Wiring) -> io::Result<Built>;
}

/// Which machines have a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every machine.
    Always,
    /// Those with ACPI tables.
    WithAcpi,
    /// Those whose config lists it in `devices` with this `type`, once for each time.
    Listed(&'static str),
}

/// Where a guest finds a device: on the port bus, and at the interrupt controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its ports, at least one. A machine with one above 0xffff is refused.
    pub ports: Range<u64>,
    /// Its global system interrupt, on machines with interrupt controllers. No other device has it.
    pub gsi: Option<u32>,
}

impl Place {
    /// These ports, and no interrupt.
    pub const fn ports(ports: Range<u64>) -> Self {
        Self { ports, gsi: None }
    }

    /// `count` ports from `first` on, such as one that a config chooses, and no interrupt.
    pub fn ports_from(first: Port, count: u64) -> Self {
        let first = u64::from(first.get());
        Self::ports(first..first + count)
    }

    /// With this global system interrupt.
    pub const fn with_gsi(self, gsi: u32) -> Self {
        // Not `..self`: a const function can't drop what that would leave.
        let Self { ports, gsi: _ } = self;
        Self { ports, gsi: Some(gsi) }
    }
}

/// The fields of a kind whose port is the config's to choose.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtPort {
    /// Its port, or its first one.
    pub port: Port,
}

/// A kind, as a line of a table of kinds.
#[derive(Clone, Copy)]
pub struct LegacyEntry {
    /// [`LegacyKind::NAME`].
    pub name: &'static str,
    /// [`LegacyKind::PRESENCE`].
    pub presence: Presence,
    plan: fn(&Value) -> Result<Planned, FieldError>,
    /// The schema of [`LegacyKind::Config`].
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl LegacyEntry {
    /// The line of `K`.
    pub const fn of<K: LegacyKind>() -> Self {
        Self {
            name: K::NAME,
            presence: K::PRESENCE,
            plan: Planned::read::<K>,
            schema: <K::Config as JsonSchema>::json_schema,
        }
    }

    /// What `type` says in a config that lists it.
    pub const fn listed_as(&self) -> Option<&'static str> {
        match self.presence {
            Presence::Listed(name) => Some(name),
            Presence::Always | Presence::WithAcpi => None,
        }
    }

    /// Reads the fields that the config has for a device, an object without `type` and `id`, and decides where it is.
    ///
    /// # Errors
    /// A field is unknown, missing or wrong.
    pub fn plan(&self, fields: &Value) -> Result<Planned, FieldError> {
        (self.plan)(fields)
    }
}

impl fmt::Debug for LegacyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, presence, .. } = self;
        f.debug_struct("LegacyEntry").field("name", name).field("presence", presence).finish_non_exhaustive()
    }
}

/// A device that is decided, and doesn't exist yet.
#[derive(Clone)]
pub struct Planned {
    /// [`LegacyKind::NAME`].
    pub name: &'static str,
    /// [`LegacyKind::PRESENCE`].
    pub presence: Presence,
    /// Where the guest finds it.
    pub place: Place,
    kind: Arc<dyn Make>,
}

impl Planned {
    fn read<K: LegacyKind>(fields: &Value) -> Result<Self, FieldError> {
        let config: K::Config = vmm_config::read_fields(fields)?;
        let place = K::place(&config);
        Ok(Self { name: K::NAME, presence: K::PRESENCE, place, kind: Arc::new(Of::<K>(config)) })
    }

    /// Adds what it says in ACPI.
    ///
    /// # Errors
    /// As [`LegacyKind::describe`].
    pub fn describe(&self, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        self.kind.describe(&self.place, acpi)
    }

    /// Makes the device.
    ///
    /// # Errors
    /// As [`LegacyKind::build`].
    pub fn build(&self, wiring: &mut Wiring) -> io::Result<Built> {
        self.kind.build(wiring)
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A kind with its fields, whatever type they are.
trait Make: Send + Sync {
    fn describe(&self, place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error>;
    fn build(&self, wiring: &mut Wiring) -> io::Result<Built>;
}

struct Of<K: LegacyKind>(K::Config);

impl<K: LegacyKind> Make for Of<K> {
    fn describe(&self, place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        K::describe(place, acpi)
    }

    fn build(&self, wiring: &mut Wiring) -> io::Result<Built> {
        K::build(&self.0, wiring)
    }
}
