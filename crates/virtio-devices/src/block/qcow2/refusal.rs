//! Why a qcow2 image can't be used, and what to do about it.

use std::fmt;
use std::path::Path;

use crate::shell;

/// The reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The magic number is missing.
    NotQcow2,
    /// The file ends within its header, after this many bytes.
    CutShort(usize),
    /// Neither version 2 nor 3.
    Version(u32),
    /// The image is encrypted.
    Encrypted(Encryption),
    /// The dirty bit is set: its last writer didn't close it.
    Dirty,
    /// The data is in an external file.
    ExternalData,
    /// The image has extended L2 entries.
    ExtendedL2,
    /// The compression type is unknown.
    Compression(u8),
    /// An incompatible feature is unknown.
    UnknownFeature {
        /// The feature's bit number.
        bit: u32,
        /// The feature's name in the image.
        name: Option<String>,
    },
    /// A table doesn't start at a cluster.
    Misplaced {
        /// The table.
        table: Table,
        /// Its offset in bytes.
        at: u64,
    },
    /// Data that isn't compressed doesn't start at a cluster.
    MisplacedData {
        /// Its offset in bytes.
        at: u64,
    },
    /// A cluster of data or of a table is beyond the end of the file.
    BeyondEnd {
        /// Its offset in bytes.
        at: u64,
        /// Length of the file.
        len: u64,
    },
    /// A table overlaps another.
    Overlapping {
        /// The table.
        table: Table,
        /// The other one.
        over: Table,
        /// Offset in bytes.
        at: u64,
    },
    /// A cluster of a table has a reference count of 0.
    Uncounted {
        /// The table.
        table: Table,
        /// Offset in bytes.
        at: u64,
    },
    /// A cluster of a table has a reference count lower than its number of users.
    Undercounted {
        /// The table.
        table: Table,
        /// Offset in bytes.
        at: u64,
        /// The reference count.
        count: u64,
        /// Number of tables that refer to it.
        users: u64,
    },
    /// A cluster is marked COPIED, to be written in place, but its reference count isn't 1.
    NotOne {
        /// The cluster's use.
        what: &'static str,
        /// Offset in bytes.
        at: u64,
        /// The reference count.
        count: u64,
    },
    /// A data cluster has a reference count of 0.
    UncountedData {
        /// Offset in bytes.
        at: u64,
    },
    /// A data cluster is also a table's.
    DataOverTable {
        /// Offset in bytes.
        at: u64,
    },
    /// The image has more snapshots than are checked.
    TooManySnapshots,
    /// A field has an invalid value.
    Damaged(&'static str, u64),
}

/// What a cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The header, in the first cluster.
    Header,
    /// The L1 table, which points to L2 tables.
    L1,
    /// An L2 table, which points to data.
    L2,
    /// The refcount table, which points to refcount blocks.
    RefcountTable,
    /// A block of reference counts.
    RefcountBlock,
    /// The table of internal snapshots.
    Snapshots,
    /// The L1 table of a snapshot.
    SnapshotL1,
    /// An L2 table of a snapshot.
    SnapshotL2,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the header",
            Self::L1 => "the level 1 table",
            Self::L2 => "a level 2 table",
            Self::RefcountTable => "the refcount table",
            Self::RefcountBlock => "a refcount block",
            Self::Snapshots => "the snapshot table",
            Self::SnapshotL1 => "a level 1 table of a snapshot",
            Self::SnapshotL2 => "a level 2 table of a snapshot",
        })
    }
}

/// Encryption method of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// AES-CBC.
    Aes,
    /// LUKS.
    Luks,
    /// An unknown method.
    Other(u32),
}

impl Refusal {
    /// What is wrong with the image at `file`, and the command that helps; printed after its path.
    pub fn problem(&self, file: &Path) -> String {
        let path = shell::path(file);
        let convert = format!("convert it, qemu-img convert -O qcow2 {path} NEW.qcow2");
        match self {
            Self::NotQcow2 => {
                "isn't a qcow2 image: set \"format\": \"raw\" if its bytes are the disk's".to_owned()
            }
            Self::CutShort(len) => {
                format!("ends within its header, after {len} bytes: copy it again from its source")
            }
            Self::Version(version) => {
                format!("is a qcow image of version {version}, only 2 and 3 are supported: {convert}")
            }
            Self::Encrypted(method) => encrypted(*method, file),
            Self::Dirty => {
                format!("is marked dirty because it wasn't closed: repair it, qemu-img check -r all {path}")
            }
            Self::ExternalData => {
                format!("keeps its data in another file, which isn't supported: {convert}")
            }
            Self::ExtendedL2 => format!("has extended L2 entries, which aren't supported: {convert}"),
            Self::Compression(kind) => {
                format!("has clusters of compression type {kind}, which isn't supported: {convert}")
            }
            Self::UnknownFeature { bit, name } => {
                let name = name.as_ref().map_or_else(String::new, |name| format!(" (\"{name}\")"));
                format!("has the incompatible feature {bit}{name}, which isn't supported: {convert}")
            }
            Self::Misplaced { table, at } => {
                format!("is damaged, {table} can't be at {at:#x}: see qemu-img check {path}")
            }
            Self::MisplacedData { at } => {
                format!("is damaged, data can't be at {at:#x}: see qemu-img check {path}")
            }
            Self::BeyondEnd { at, len } => {
                format!(
                    "is cut short, it ends at {len:#x} but refers to {at:#x}: copy it again from its source, or see qemu-img check {path}"
                )
            }
            Self::Overlapping { table, over, at } => {
                format!("is damaged, {table} at {at:#x} overlaps {over}: see qemu-img check {path}")
            }
            Self::Uncounted { table, at } => {
                format!(
                    "is damaged, {table} at {at:#x} has a reference count of 0: repair it, qemu-img check -r all {path}"
                )
            }
            Self::Undercounted { table, at, count, users } => format!(
                "is damaged, {table} at {at:#x} is used {users} times but has a reference count of {count}: repair it, qemu-img check -r all {path}"
            ),
            Self::NotOne { what, at, count } => format!(
                "is damaged, {what} at {at:#x} is marked COPIED but has a reference count of {count}: repair it, qemu-img check -r \
                 all {path}"
            ),
            Self::UncountedData { at } => {
                format!(
                    "is damaged, data at {at:#x} has a reference count of 0: repair it, qemu-img check -r all {path}"
                )
            }
            Self::DataOverTable { at } => {
                format!("is damaged, data at {at:#x} overlaps a table: see qemu-img check {path}")
            }
            Self::TooManySnapshots => format!(
                "has more internal snapshots than can be checked before it is written: set \"read_only\", remove some, qemu-img \
                 snapshot -d NAME {path}, or {convert}"
            ),
            Self::Damaged(what, value) => {
                format!("is damaged, {what} can't be {value:#x}: see qemu-img check {path}")
            }
        }
    }
}

/// The problem with an encrypted image.
fn encrypted(method: Encryption, file: &Path) -> String {
    let method = match method {
        Encryption::Aes => "AES".to_owned(),
        Encryption::Luks => "LUKS".to_owned(),
        Encryption::Other(number) => format!("method {number}"),
    };
    let path = shell::option_value(file);
    format!(
        "is encrypted ({method}), which isn't supported: decrypt it into another image, qemu-img convert \
         --object secret,id=key,file=KEYFILE --image-opts \
         driver=qcow2,file.filename={path},encrypt.key-secret=key -O qcow2 NEW.qcow2"
    )
}
