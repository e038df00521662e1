//! Why a state file or a manifest is refused.

use crate::limits::{FORMAT, MAX_MANIFEST_LEN, MAX_SECTION_LEN, MAX_SECTIONS, MAX_STATE_LEN, OLDEST_FORMAT};
use crate::section_name::SectionName;
use crate::state_error::StateError;

/// Why a state file or a manifest can't be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is another file.
    #[error("is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"")]
    NotState,
    /// Something in it contradicts itself.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A program wrote it that is newer than this one.
    #[error("has format {format}, and this monitor reads up to {FORMAT}: use a newer version")]
    NewerFormat {
        /// Its format.
        format: u64,
    },
    /// A program wrote it that is too old.
    #[error("has format {format}, and this monitor reads from {OLDEST_FORMAT} on: use an older version")]
    OlderFormat {
        /// Its format.
        format: u64,
    },
    /// The state file is longer than any machine needs.
    #[error("has {len} bytes, but the state of a machine has at most {MAX_STATE_LEN}")]
    LongState {
        /// Its length.
        len: u64,
    },
    /// There are more sections than any machine needs.
    #[error("has {count} sections, but the state of a machine has at most {MAX_SECTIONS}")]
    ManySections {
        /// Their number.
        count: u64,
    },
    /// A section is longer than any part needs.
    #[error("section {name} has {len} bytes, but a section has at most {MAX_SECTION_LEN}")]
    LongSection {
        /// The section.
        name: SectionName,
        /// Its length.
        len: u64,
    },
    /// The manifest is longer than any machine needs.
    #[error("the manifest has {len} bytes, but one has at most {MAX_MANIFEST_LEN}")]
    LongManifest {
        /// Its length.
        len: u64,
    },
    /// Two sections have the same name.
    #[error("section {0} is there twice")]
    Repeated(SectionName),
    /// A section is missing.
    #[error("section {0} is missing")]
    Missing(SectionName),
    /// A section has a version that is too new.
    #[error("section {name} has version {version}, and this monitor reads up to {newest}")]
    NewerSection {
        /// The section.
        name: SectionName,
        /// Its version.
        version: u16,
        /// The newest version that is read.
        newest: u16,
    },
    /// A section has a version that is too old.
    #[error("section {name} has version {version}, and this monitor reads from {oldest} on")]
    OlderSection {
        /// The section.
        name: SectionName,
        /// Its version.
        version: u16,
        /// The oldest version that is read.
        oldest: u16,
    },
    /// A section belongs to a part that this machine hasn't, and may not be skipped.
    #[error(
        "section {name}, version {version}, is of a part that this monitor doesn't know, and may not be skipped"
    )]
    UnknownSection {
        /// The section.
        name: SectionName,
        /// Its version.
        version: u16,
    },
    /// A section's fields can't be loaded.
    #[error("section {name}: {source}")]
    Section {
        /// The section.
        name: SectionName,
        /// The field and the reason.
        source: StateError,
    },
    /// The manifest isn't one.
    #[error("the manifest: {0}")]
    Manifest(String),
    /// The manifest and the sections beside it contradict each other.
    #[error("the manifest lists other sections than the directory: {0}")]
    OtherSections(String),
}
