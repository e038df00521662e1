//! What a config says of a disk.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use vmm_config::{FilePath, Ranged, list, parsed};

use super::request::SERIAL_LEN;
use crate::limits::Limits;

/// A disk.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An image file or a block device.
    pub path: FilePath,
    /// The guest can't write it, and others may read it meanwhile.
    #[serde(default)]
    pub read_only: bool,
    /// What the file's bytes mean; if absent, they are the disk's ("raw").
    #[serde(default)]
    pub format: Option<Format>,
    /// When a write is done.
    #[serde(default)]
    pub cache: Cache,
    /// Past the host's page cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// What the guest reads as the disk's serial, at most 20 bytes of ASCII; if absent, its id.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub serial: Option<DiskSerial>,
    /// Queues, at most one for each vCPU; if absent, as many as that, 16 at most.
    #[serde(default)]
    pub queues: Option<Ranged<1, 16>>,
    /// How the host reads and writes.
    #[serde(default)]
    pub io: Io,
    /// What the guest may use.
    #[serde(default)]
    pub limits: Limits,
    /// Where the guest's writes go instead of the file.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// The files below a qcow2 image, from the one that it names downwards.
    #[serde(default, deserialize_with = "backing")]
    pub backing: Vec<FilePath>,
}

fn backing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FilePath>, D::Error> {
    list(deserializer, "a list of paths such as [\"base.qcow2\"]")
}

/// What a guest reads as a disk's serial.
#[derive(Debug)]
pub struct DiskSerial([u8; SERIAL_LEN]);

impl DiskSerial {
    /// Of as much of a text as there is room for.
    pub(super) fn of(text: &str) -> Self {
        let mut serial = [0; SERIAL_LEN];
        serial.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(serial)
    }

    pub(super) fn bytes(&self) -> [u8; SERIAL_LEN] {
        self.0
    }
}

impl FromStr for DiskSerial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let len = text.len();
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(format!("{text:?} isn't printable ASCII, which a serial is made of"));
        }
        if len > SERIAL_LEN {
            return Err(format!("{text:?} has {len} bytes, shorten it to {SERIAL_LEN} or fewer"));
        }
        Ok(Self::of(text))
    }
}

impl<'de> Deserialize<'de> for DiskSerial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a serial such as \"disk-1\"")
    }
}

/// What an image file's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// They are the disk's.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// When a write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// When the host has it; a flush brings it to stable storage.
    #[default]
    Writeback,
    /// When it is on stable storage.
    Writethrough,
}

/// How the host reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// io_uring, or threads where that is refused.
    #[default]
    Auto,
    /// io_uring or not at all.
    #[serde(rename = "io_uring")]
    Uring,
    /// Threads.
    Threads,
}

/// Where the guest's writes go instead of the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"temp\" or an object such as {\"temp_in\": \"/var/tmp\"}")]
pub enum Overlay {
    /// Into a file without a name in the directory for temporary files, gone when the monitor ends.
    Temp,
    /// The same in this directory.
    TempIn(FilePath),
}
