//! Why a qcow2 image can't be used, and what to do about it.

use std::fmt;
use std::path::Path;

use crate::shell;

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It doesn't start like one.
    NotQcow2,
    /// It ends after so many bytes, within its header.
    CutShort(usize),
    /// Neither version 2 nor 3.
    Version(u32),
    /// What is written into it must be encrypted.
    Encrypted(Encryption),
    /// Whoever wrote it last didn't finish.
    Dirty,
    /// What is in it is in another file.
    ExternalData,
    /// Its tables have entries of another kind.
    ExtendedL2,
    /// Its clusters are compressed in a way that isn't known here.
    Compression(u8),
    /// It has an incompatible feature that isn't known here, which it may name.
    UnknownFeature {
        /// Which bit.
        bit: u32,
        /// What the image calls it.
        name: Option<String>,
    },
    /// A table of it isn't at the start of a cluster.
    Misplaced {
        /// Which.
        table: Table,
        /// Where it says that it is, in bytes.
        at: u64,
    },
    /// A table of it lies over another.
    Overlapping {
        /// Which.
        table: Table,
        /// The other.
        over: Table,
        /// Where, in bytes.
        at: u64,
    },
    /// The cluster of one of its tables has a reference count of 0.
    Uncounted {
        /// Which.
        table: Table,
        /// Where, in bytes.
        at: u64,
    },
    /// The cluster of one of its tables counts as used less often than it is.
    Undercounted {
        /// Which.
        table: Table,
        /// Where, in bytes.
        at: u64,
        /// How often it counts as used.
        count: u64,
        /// How many tables name it.
        users: u64,
    },
    /// A cluster is marked COPIED, to be written in place, and its reference count isn't 1.
    NotOne {
        /// What is there.
        what: &'static str,
        /// Where, in bytes.
        at: u64,
        /// How often it counts as used.
        count: u64,
    },
    /// Data has a reference count of 0.
    UncountedData {
        /// Where, in bytes.
        at: u64,
    },
    /// The place of data is a table's.
    DataOverTable {
        /// Where, in bytes.
        at: u64,
    },
    /// It has more snapshots than are checked.
    TooManySnapshots,
    /// Something in it has a value that it can't have.
    Damaged(&'static str, u64),
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The first cluster.
    Header,
    /// Of the tables that say where the data is.
    L1,
    /// Of where the data is.
    L2,
    /// Of the blocks of reference counts.
    RefcountTable,
    /// Of reference counts.
    RefcountBlock,
    /// Of internal snapshots.
    Snapshots,
    /// Of a snapshot's tables that say where its data is.
    SnapshotL1,
    /// Of where a snapshot's data is.
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

/// How an image is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// AES-CBC.
    Aes,
    /// LUKS.
    Luks,
    /// A method of the future.
    Other(u32),
}

impl Refusal {
    /// What is wrong with the image at `path`, to be read after its path, and the command to run.
    pub fn problem(&self, file: &Path) -> String {
        let path = shell::path(file);
        let convert = format!("convert it, qemu-img convert -O qcow2 {path} NEW.qcow2");
        match self {
            Self::NotQcow2 => {
                "isn't a qcow2 image: set \"format\": \"raw\" if its bytes are the disk's".to_owned()
            }
            Self::CutShort(len) => {
                format!("ends within its header, after {len} bytes: copy it anew from where it came")
            }
            Self::Version(version) => {
                format!("is of version {version} of qcow, only 2 and 3 are supported: {convert}")
            }
            Self::Encrypted(method) => {
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
            Self::Dirty => {
                format!("is marked dirty, it wasn't closed: repair it, qemu-img check -r all {path}")
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
            Self::Overlapping { table, over, at } => {
                format!("is damaged, {table} at {at:#x} lies over {over}: see qemu-img check {path}")
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
                format!("is damaged, data at {at:#x} lies over a table: see qemu-img check {path}")
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
