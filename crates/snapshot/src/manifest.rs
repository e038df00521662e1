//! The manifest: what a snapshot is of, for people and for a restore.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::file_names::DISKS;
use crate::format::check_format;
use crate::format_error::FormatError;
use crate::limits::{FORMAT, MAX_MANIFEST_LEN};
use crate::memory_layout::MemoryLayout;
use crate::section_name::{SectionKind, SectionName};
use crate::snapshot_id::SnapshotId;
use crate::timestamp::Timestamp;

/// Name of the manifest's section, whose bytes are those of `manifest.json`.
pub(crate) const MANIFEST: SectionName = SectionName {
    kind: match SectionKind::new("manifest") {
        Some(kind) => kind,
        None => unreachable!(),
    },
    instance: 0,
};
/// Its version: the fields of a manifest change with the format only.
pub(crate) const MANIFEST_VERSION: u16 = FORMAT;

/// What a snapshot is of.
///
/// Unknown fields are refused, as in a config: a restore that ignores one would silently do less than the snapshot says. So a further
/// field is a further format, which the program before it refuses by its number and the program after it still reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the snapshot, [`FORMAT`] in a new one.
    pub format: u16,
    /// Name of the program that wrote it.
    pub program: String,
    /// Version of that program.
    pub version: String,
    /// When it was taken.
    pub created: Timestamp,
    /// Its id.
    pub id: SnapshotId,
    /// The snapshot from which its machine was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The host on which it was taken.
    pub host: SavedHost,
    /// The guest's memory.
    pub memory: MemoryLayout,
    /// The disks of the machine.
    pub disks: Vec<SavedDisk>,
    /// The machine's config, a JSON object.
    pub config: Map<String, Value>,
    /// The sections of the state, without the manifest itself.
    pub sections: Vec<Section>,
}

/// The host on which a snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedHost {
    /// The processor's vendor, such as "GenuineIntel".
    pub vendor: String,
    /// The processor's family, with the extended one.
    pub family: u32,
    /// The processor's model, with the extended one.
    pub model: u32,
    /// The processor's stepping.
    pub stepping: u32,
    /// Release of the host's kernel.
    pub kernel: String,
    /// Frequency of the guest's TSC, in kHz.
    pub tsc_khz: u32,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedDisk {
    /// Id of its device.
    pub id: String,
    /// Path of its file when the snapshot was taken.
    pub path: String,
    /// Length of the disk in bytes.
    pub len: u64,
    /// Where its contents are.
    pub contents: DiskContents,
}

/// Where the contents of a disk are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskContents {
    /// In the disk's own file, which had this stamp. A restore refuses a file with another one.
    Stamp(String),
    /// In the snapshot, at this path relative to its directory: "disks/" and a name.
    Saved(String),
}

/// A section of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What it is the state of.
    pub kind: SectionKind,
    /// Which of the parts of this kind.
    pub instance: u32,
    /// Version of its fields.
    pub version: u16,
}

impl Section {
    /// Its name.
    pub fn name(&self) -> SectionName {
        SectionName { kind: self.kind, instance: self.instance }
    }
}

/// The field that every format has, as written by newer programs too.
#[derive(Deserialize)]
struct Stated {
    format: u64,
}

impl Manifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// It is too long, has a format that isn't read, isn't JSON, lacks a field, has an unknown one, or one with an impossible value.
    pub fn parse(text: &[u8]) -> Result<Self, FormatError> {
        let len = text.len() as u64;
        if len > MAX_MANIFEST_LEN {
            return Err(FormatError::LongManifest { len });
        }
        let refused = |error: serde_json::Error| FormatError::Manifest(error.to_string());
        let Stated { format } = serde_json::from_slice(text).map_err(refused)?;
        check_format(format)?;
        let manifest: Self = serde_json::from_slice(text).map_err(refused)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The text of the manifest, to read.
    ///
    /// # Errors
    /// It is too long, or has an impossible value.
    pub fn to_json(&self) -> Result<String, FormatError> {
        self.check()?;
        let mut text = serde_json::to_string_pretty(self).expect("all keys of a manifest are texts");
        text.push('\n');
        let len = text.len() as u64;
        if len > MAX_MANIFEST_LEN {
            return Err(FormatError::LongManifest { len });
        }
        Ok(text)
    }

    /// Checks that the manifest lists exactly the sections that are `there`, in this order.
    pub(crate) fn check_sections(&self, there: &[Section]) -> Result<(), FormatError> {
        if self.sections == there {
            return Ok(());
        }
        let of_both = self.sections.iter().map(Some).chain(std::iter::repeat(None));
        let differing = of_both.zip(there).find(|(listed, there)| *listed != Some(there));
        let message = match differing {
            Some((Some(listed), there)) => format!("{listed} instead of {there}"),
            Some((None, there)) => format!("not {there}"),
            None => format!("also {}", self.sections[there.len()]),
        };
        Err(FormatError::OtherSections(message))
    }

    fn check(&self) -> Result<(), FormatError> {
        check_format(self.format.into())?;
        let mut names = BTreeSet::from([MANIFEST]);
        if let Some(section) = self.sections.iter().find(|section| !names.insert(section.name())) {
            return Err(FormatError::Repeated(section.name()));
        }
        let mut ids = BTreeSet::new();
        if let Some(disk) = self.disks.iter().find(|disk| !ids.insert(&disk.id)) {
            return Err(FormatError::Manifest(format!("disk {:?} is there twice", disk.id)));
        }
        let mut paths = BTreeSet::new();
        let saved = self.disks.iter().filter_map(SavedDisk::saved_as);
        for path in saved {
            if !is_inside(path) {
                let message = format!("disks: {path:?} is not a path of a file in the snapshot");
                return Err(FormatError::Manifest(message));
            }
            if !paths.insert(path) {
                return Err(FormatError::Manifest(format!("disks: {path:?} is there twice")));
            }
        }
        Ok(())
    }
}

impl SavedDisk {
    /// Its path in the snapshot, if its contents are there.
    pub fn saved_as(&self) -> Option<&str> {
        match &self.contents {
            DiskContents::Saved(path) => Some(path),
            DiskContents::Stamp(_) => None,
        }
    }
}

/// Whether a path is that of a file in the snapshot's directory "disks".
fn is_inside(path: &str) -> bool {
    let name = path.strip_prefix(DISKS).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']))
}

impl std::fmt::Display for Section {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} version {}", self.name(), self.version)
    }
}
