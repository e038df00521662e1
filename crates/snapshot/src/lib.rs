//! The format of a virtual machine's snapshot. `docs/snapshot.md` describes it.
//!
//! ```text
//! vm.snap/manifest.json   what it is of, to read             Manifest
//!         state           the machine without its memory     StateWriter, StateFile
//!         memory          guest memory, raw and sparse       MemoryLayout, MemoryWriter
//!         disks/          contents of disks, if saved
//! ```
//!
//! - A part of a machine, such as a device, describes its [`State`] as a plain value, which is written and read field by field.
//! - [`StateWriter`] collects the states, each as a section with a version and a checksum. [`StateFile`] checks a file before any
//!   of its sections is parsed.
//! - [`NewSnapshot`] makes a directory that is complete or not there; [`SnapshotFiles`] are its files, or somebody else's, which are
//!   written.
//! - [`Snapshot`] is one that was written.
//!
//! ```
//! use vmm_snapshot::{
//!     FORMAT, FieldReader, FieldWriter, Manifest, MemoryLayout, SavedHost, SnapshotId, State, StateError,
//!     StateFile, StateWriter, Timestamp,
//! };
//!
//! #[derive(Debug, PartialEq)]
//! struct TimerState {
//!     count: u16,
//!     enabled: bool,
//! }
//!
//! impl State for TimerState {
//!     const KIND: &'static str = "dev.timer";
//!     const VERSION: u16 = 1;
//!
//!     fn save(&self, fields: &mut FieldWriter) {
//!         fields.u16(self.count);
//!         fields.bool(self.enabled);
//!     }
//!
//!     fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
//!         Ok(Self { count: fields.u16("count")?, enabled: fields.bool("enabled")? })
//!     }
//! }
//!
//! let timer = TimerState { count: 500, enabled: true };
//! let mut state = StateWriter::new();
//! state.add(0, &timer);
//! let manifest = Manifest {
//!     format: FORMAT,
//!     program: "example".to_owned(),
//!     version: "1.0".to_owned(),
//!     created: Timestamp::now(),
//!     id: SnapshotId::random()?,
//!     parent: None,
//!     host: SavedHost {
//!         vendor: "GenuineIntel".to_owned(),
//!         family: 6,
//!         model: 85,
//!         stepping: 7,
//!         kernel: "6.1.0".to_owned(),
//!         tsc_khz: 2_500_000,
//!     },
//!     memory: MemoryLayout::of([0..512 << 20])?,
//!     disks: Vec::new(),
//!     config: Default::default(),
//!     sections: state.sections(),
//! };
//! let bytes = state.finish(&manifest)?;
//!
//! let mut file = StateFile::parse(bytes)?;
//! assert_eq!(file.instances("dev.timer"), [0]);
//! assert_eq!(file.take::<TimerState>(0)?, timer);
//! let missing = file.take::<TimerState>(1).unwrap_err();
//! assert_eq!(missing.to_string(), "section dev.timer/1 is missing");
//! file.finish()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod describe;
mod error;
mod fields;
mod file_names;
mod format;
mod format_error;
mod limits;
mod manifest;
mod memory_layout;
mod memory_writer;
mod new_snapshot;
mod section_name;
mod snapshot;
mod snapshot_files;
mod snapshot_id;
mod state;
mod state_error;
mod state_file;
mod state_writer;
mod timestamp;
mod verify;

pub use describe::{describe, describe_json};
pub use error::Error;
pub use fields::{FieldReader, FieldWriter};
pub use format_error::FormatError;
pub use limits::{FORMAT, MAX_MANIFEST_LEN, MAX_SECTION_LEN, MAX_SECTIONS, MAX_STATE_LEN, OLDEST_FORMAT};
pub use manifest::{DiskContents, Manifest, SavedDisk, SavedHost, Section};
pub use memory_layout::{LayoutError, MemoryLayout, MemoryRegion, PAGE_LEN, REGION_ALIGNMENT};
pub use memory_writer::MemoryWriter;
pub use new_snapshot::NewSnapshot;
pub use section_name::{SectionKind, SectionName};
pub use snapshot::{Snapshot, read_manifest};
pub use snapshot_files::{SnapshotFiles, check_memory, check_new_file};
pub use snapshot_id::SnapshotId;
pub use state::State;
pub use state_error::StateError;
pub use state_file::StateFile;
pub use state_writer::StateWriter;
pub use timestamp::Timestamp;
pub use verify::{Verified, verify};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
