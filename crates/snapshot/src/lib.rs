//! The format of a virtual machine's snapshot.
//!
//! A part of a machine, such as a device, describes its [`State`] as a plain value, which is written and read field by field.
//!
//! ```
//! use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};
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
//! let state = TimerState { count: 500, enabled: true };
//! let mut fields = FieldWriter::new();
//! state.save(&mut fields);
//! let bytes = fields.into_bytes();
//! assert_eq!(bytes, [0xf4, 0x01, 0x01]);
//! assert_eq!(TimerState::load(1, &mut FieldReader::new(&bytes))?, state);
//! # Ok::<(), StateError>(())
//! ```
#![forbid(unsafe_code)]

mod fields;
mod state;
mod state_error;

pub use fields::{FieldReader, FieldWriter};
pub use state::State;
pub use state_error::StateError;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
