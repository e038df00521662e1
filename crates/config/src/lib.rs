//! Config files and command line flags: typed, validated values.
//!
//! Two steps, so that the types show what is known at which stage:
//!
//! ```text
//! text --ConfigFile::parse--> ConfigFile --merge(Overrides)--> Config
//!                             every field may be absent        complete, defaults filled in, paths resolved
//! ```
//!
//! Values are validated when they are read, by the same code for the file and the flags, and an error
//! contains the position, the value and the remedy. This crate opens no file except the config itself:
//! whether the kernel exists, or the host has enough memory, is checked by the layers above.
//!
//! ```
//! use std::{ffi::OsStr, path::Path};
//! use vmm_config::{Boot, ConfigFile, Flag, Overrides};
//!
//! # fn main() -> Result<(), vmm_config::ConfigError> {
//! let text = r#"{ "boot": {"kernel": "vmlinuz"}, "memory": {"size": "512M"} }"#;
//! let file = ConfigFile::parse(text, Path::new("guests/vm.json"))?;
//!
//! let mut overrides = Overrides::default();
//! overrides.set(Flag::Memory, OsStr::new("1G"))?;
//!
//! let config = file.merge(overrides)?;
//! let Boot::Linux(linux) = config.boot else { panic!("a kernel was named") };
//! assert_eq!(linux.kernel.as_path(), Path::new("guests/vmlinuz"));
//! assert_eq!(linux.cmdline.as_str(), "console=ttyS0 reboot=k panic=-1");
//! assert_eq!(config.memory.size.bytes(), 1 << 30);
//!
//! let error = ConfigFile::parse(r#"{"boot": {"kernal": "vmlinuz"}}"#, Path::new("vm.json")).unwrap_err();
//! assert_eq!(error.to_string(), r#"vm.json:1:18: boot.kernal: unknown field, did you mean "kernel"?"#);
//! # Ok(())
//! # }
//! ```
//!
//! A running machine is controlled by [`Command`]s, which it answers with [`Response`]s.
//!
//! [`schema()`] returns the file's JSON schema; `docs/config.md` describes each field.
#![forbid(unsafe_code)]

mod affinity;
mod announce;
mod boot;
mod choice;
mod cmdline;
mod command;
mod config;
mod conflicts;
mod count;
mod device;
mod device_ids;
mod digits;
mod error;
mod event;
mod expect;
mod features;
mod fields;
mod file;
mod flag;
mod flag_fields;
mod flat;
mod irqchip;
mod locate;
mod no_fields;
mod number;
mod on_reboot;
mod overrides;
mod path;
mod protocol;
mod ranged;
mod sandbox;
mod schema;
mod serial;
mod size;
mod strict;
mod text;
mod text_file;
mod timeout;
mod topology;
mod transport;
mod unique;
mod user;
mod value_error;
mod virtio;

pub use affinity::{HostCpu, HostCpus};
pub use announce::AnnounceVirtio;
pub use boot::{Boot, FlatBoot, LinuxBoot};
pub use cmdline::CommandLine;
pub use command::{
    Answer, Command, CommandError, DeviceUpdate, ErrorCode, ListedDevice, MachineState, MachineStatus, Reply,
    Request, Response, SnapshotCommand, SnapshotReply, Status,
};
pub use config::{Config, Cpus, Memory};
pub use count::CpuCount;
pub use device::Device;
pub use error::{ConfigError, Position, ReadProblem};
pub use event::{Event, EventLine};
pub use expect::{Expect, ExpectedMemory, Value};
pub use features::CpuFeatures;
pub use fields::{FieldError, read_fields, read_legacy_fields, read_update};
pub use file::{BootSection, ConfigFile, CpusSection, MemorySection};
pub use flag::Flag;
pub use flag_fields::FlagFields;
pub use flat::{FlatFormat, FlatMode, FlatSection, Module};
pub use irqchip::IrqchipReason;
pub use locate::ConfigText;
pub use no_fields::NoFields;
pub use number::{Address, Port, Word};
pub use on_reboot::OnReboot;
pub use overrides::Overrides;
pub use path::FilePath;
pub use protocol::Protocol;
pub use ranged::Ranged;
pub use sandbox::{Sandbox, SeccompAction};
pub use schema::{control_schema, schema, schema_with};
pub use serial::Serial;
pub use size::{ByteSize, MemorySize};
pub use strict::{list, parsed, word_or_list};
pub use text::{hint, printable};
pub use text_file::describe_file_type;
pub use timeout::Timeout;
pub use transport::Transport;
pub use user::{UnixId, User};
pub use value_error::ValueError;
pub use virtio::{DeviceId, Slot, VirtioSection};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
