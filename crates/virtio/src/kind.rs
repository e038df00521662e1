//! A kind of device: what a config says of it, and how it comes to be.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Claim, DeviceError, VirtioDevice};

/// What is static of a device. All that the rest of the workspace knows of it follows from this: its name in the config and
/// in messages, its thread, its counters, its place in ACPI.
pub trait Kind: VirtioDevice + Sized + 'static {
    /// What `type` says in the config.
    const NAME: &'static str;
    /// Its number (virtio 1.2 §5).
    const ID: u32;
    /// Its fields in the config, beside `type` and `id`. It refuses unknown ones.
    type Config: DeserializeOwned + JsonSchema;

    /// What the config alone says that no other device of the machine may have: found out before anything is opened, where the
    /// host would refuse the second one for a reason of its own.
    fn config_claims(_config: &Self::Config) -> Vec<Claim> {
        Vec::new()
    }

    /// Opens what the config names.
    ///
    /// # Errors
    /// The config names what isn't there or can't be used.
    fn open(config: Self::Config, setting: &Setting<'_>) -> Result<Self, DeviceError>;
}

/// What a device may know of the machine that it is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Where relative paths of the config start.
    pub directory: &'a Path,
    /// How many vCPUs there are.
    pub vcpus: u32,
    /// The device's id.
    pub id: &'a str,
    /// Only the machine's plan is wanted: no guest will run, and the host stays as it is. What the config names must be usable
    /// all the same.
    pub plan_only: bool,
}

impl Setting<'_> {
    /// A path of the config, as seen from the current directory.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }
}

type Open = fn(Value, &Setting<'_>) -> Result<Box<dyn VirtioDevice>, DeviceError>;

/// A kind, as a line of a table of kinds.
#[derive(Clone, Copy)]
pub struct KindEntry {
    /// [`Kind::NAME`].
    pub name: &'static str,
    /// [`Kind::ID`].
    pub id: u32,
    open: Open,
    claims: fn(&Value) -> Vec<Claim>,
    /// The schema of [`Kind::Config`].
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl KindEntry {
    /// The line of `K`.
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            id: K::ID,
            open: open::<K>,
            claims: claims::<K>,
            schema: K::Config::json_schema,
        }
    }

    /// What these fields claim for their device; nothing, if they can't be read, which [`open`](Self::open) will say.
    pub fn claims(&self, fields: &Value) -> Vec<Claim> {
        (self.claims)(fields)
    }

    /// Reads the device's fields and opens what they name.
    ///
    /// # Errors
    /// A field is unknown, missing or wrong, or what it names can't be used.
    pub fn open(&self, fields: Value, setting: &Setting<'_>) -> Result<Box<dyn VirtioDevice>, DeviceError> {
        (self.open)(fields, setting)
    }
}

impl fmt::Debug for KindEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KindEntry").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

fn open<K: Kind>(fields: Value, setting: &Setting<'_>) -> Result<Box<dyn VirtioDevice>, DeviceError> {
    let config = read::<K>(&fields)?;
    Ok(Box::new(K::open(config, setting)?))
}

fn claims<K: Kind>(fields: &Value) -> Vec<Claim> {
    read::<K>(fields).map(|config| K::config_claims(&config)).unwrap_or_default()
}

fn read<K: Kind>(fields: &Value) -> Result<K::Config, DeviceError> {
    Ok(vmm_config::read_fields(fields)?)
}
