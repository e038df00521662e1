//! Device kinds: name, config and constructor.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Claim, DeviceError, VirtioDevice};

/// The static properties of a device. The rest of the workspace derives everything from them: the device's
/// name in the config and in messages, its thread, its counters, its ACPI entry.
pub trait Kind: VirtioDevice + Sized + 'static {
    /// Value of `type` in the config.
    const NAME: &'static str;
    /// Virtio device id (virtio 1.2 §5).
    const ID: u32;
    /// The config's fields besides `type` and `id`. Unknown fields must be rejected.
    type Config: DeserializeOwned + JsonSchema;

    /// Exclusive resources that the config alone determines. They are checked before any device is opened,
    /// because the host would reject the second one with a less helpful error.
    fn config_claims(_config: &Self::Config, _setting: &Setting<'_>) -> Vec<Claim> {
        Vec::new()
    }

    /// Opens the resources that the config names.
    ///
    /// # Errors
    /// A resource in the config doesn't exist or can't be used.
    fn open(config: Self::Config, setting: &Setting<'_>) -> Result<Self, DeviceError>;
}

/// What a device may know of the machine for which it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Base directory of relative paths in the config.
    pub directory: &'a Path,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The device's id.
    pub id: &'a str,
    /// Only the machine's plan is requested: no guest will run, and the host must not change. The resources
    /// in the config must be usable all the same.
    pub plan_only: bool,
}

impl Setting<'_> {
    /// Resolves a path in the config.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }
}

type Open = fn(Value, &Setting<'_>) -> Result<Box<dyn VirtioDevice>, DeviceError>;

/// A device kind as a row in a table.
#[derive(Clone, Copy)]
pub struct KindEntry {
    /// [`Kind::NAME`].
    pub name: &'static str,
    /// [`Kind::ID`].
    pub id: u32,
    open: Open,
    claims: fn(&Value, &Setting<'_>) -> Vec<Claim>,
    /// The schema of [`Kind::Config`].
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl KindEntry {
    /// The row for `K`.
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            id: K::ID,
            open: open::<K>,
            claims: claims::<K>,
            schema: K::Config::json_schema,
        }
    }

    /// The claims of a device with these fields; empty if they are invalid, which [`open`](Self::open) will
    /// report.
    pub fn claims(&self, fields: &Value, setting: &Setting<'_>) -> Vec<Claim> {
        (self.claims)(fields, setting)
    }

    /// Parses the device's fields and opens the device.
    ///
    /// # Errors
    /// A field is unknown, missing or invalid, or a resource that it names can't be used.
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

fn claims<K: Kind>(fields: &Value, setting: &Setting<'_>) -> Vec<Claim> {
    read::<K>(fields).map(|config| K::config_claims(&config, setting)).unwrap_or_default()
}

fn read<K: Kind>(fields: &Value) -> Result<K::Config, DeviceError> {
    Ok(vmm_config::read_fields(fields)?)
}
