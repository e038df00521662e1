//! Config of a disk.

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
    /// The guest can't write to it, and other readers may share it.
    #[serde(default)]
    pub read_only: bool,
    /// Format of the file; default: "raw".
    #[serde(default)]
    pub format: Option<Format>,
    /// When a write completes.
    #[serde(default)]
    pub cache: Cache,
    /// Bypass the host's page cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// The disk's serial number, at most 20 bytes of ASCII; default: its id.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub serial: Option<DiskSerial>,
    /// Number of queues, at most one per vCPU; default: one per vCPU, up to 16.
    #[serde(default)]
    pub queues: Option<Ranged<1, 16>>,
    /// How the host reads and writes.
    #[serde(default)]
    pub io: Io,
    /// Rate limits.
    #[serde(default)]
    pub limits: Limits,
    /// Where the guest's writes go instead of the file.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// Backing files of a qcow2 image, starting with the one that the image names.
    #[serde(default, deserialize_with = "backing")]
    pub backing: Vec<FilePath>,
}

fn backing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FilePath>, D::Error> {
    list(deserializer, "a list of paths such as [\"base.qcow2\"]")
}

/// Serial number of a disk.
#[derive(Debug)]
pub struct DiskSerial([u8; SERIAL_LEN]);

impl DiskSerial {
    /// Takes as much of the text as fits.
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
            return Err(format!("{text:?} contains characters other than printable ASCII"));
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

/// Format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The file's bytes are the disk's.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// When a write completes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// When the host has the data; a flush brings it to stable storage.
    #[default]
    Writeback,
    /// When the data is on stable storage.
    Writethrough,
}

/// How the host reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// io_uring, or threads if io_uring isn't permitted.
    #[default]
    Auto,
    /// io_uring only.
    #[serde(rename = "io_uring")]
    Uring,
    /// Threads only.
    Threads,
}

/// Where the guest's writes go instead of the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"temp\" or an object such as {\"temp_in\": \"/var/tmp\"}")]
pub enum Overlay {
    /// To an unnamed file in the directory for temporary files, deleted when the monitor exits.
    Temp,
    /// To an unnamed file in this directory.
    TempIn(FilePath),
}
