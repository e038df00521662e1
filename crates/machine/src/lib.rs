//! Plans a virtual machine, builds it, and runs it on the event loop of the calling thread.
//!
//! ```text
//!   Config --Inputs::open--> Inputs --Plan::new--> Plan --Supervisor::run--> Ending
//!            opens files               pure                makes the system calls in a fixed order,
//!                                                          then runs the main thread's event loop
//! ```
//! A [`Plan`] holds every address, slot and interrupt of the machine before anything exists; `--check`
//! prints it and golden tests compare it. The [`Supervisor`] outlives the machines: it is the epoll loop over the consoles,
//! the signals and the vCPU threads' exits. [`doctor`] reports what a host lacks.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use vmm_config::ConfigFile;
//! use vmm_machine::{Kinds, Start, Supervisor, Timeouts};
//!
//! let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default())?;
//! let config = Arc::new(ConfigFile::read(Path::new("vm.json"))?.merge(Default::default())?);
//! // A PC's legacy devices, and no kinds of virtio devices; vmm-virtio-devices has some.
//! let start = Start::new(config, Kinds::default())?;
//! println!("{}", start.plan);
//! let run = supervisor.run(start)?;
//! println!("{}", run.ending);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod about;
mod affinity;
mod build;
mod build_error;
mod console;
mod deadline;
mod delivery;
mod device_log;
mod diagnostics;
pub mod doctor;
mod ending;
mod error;
mod event_loop;
mod events;
mod expect;
mod fd;
mod file_reader;
mod file_use;
mod file_writer;
mod inputs;
mod io_thread;
mod job;
mod keeper_watch;
mod kinds;
mod legacy;
mod machine;
mod message;
mod messages;
mod metrics;
mod open_host;
mod output_check;
mod output_file;
mod parallel;
mod pause;
mod picture;
mod plan;
mod plan_state;
mod platform;
mod ram;
mod ranges;
mod restored_plan;
mod restoring;
mod run_state;
mod same_names;
mod saved_disk;
mod saved_memory;
mod saving;
mod signals;
mod step_times;
mod supervisor;
mod supervisor_handles;
mod system_calls;
mod transfer;
mod virtio;
mod watch;
mod watched;
mod worker;

pub use about::About;
pub use affinity::Affinity;
pub use console::OpenError;
use device_log::DeviceLog;
pub use diagnostics::{Diagnostics, ExitReport, WatchExits};
pub use ending::{Ending, TimeoutPhase};
pub use error::{Blame, Error};
pub use events::EventSink;
pub use expect::Mismatch;
pub use file_use::ConfigInUse;
pub use inputs::Inputs;
pub use job::{Progress, ProgressStep};
pub use kinds::Kinds;
pub use legacy::Device;
pub use messages::Messages;
pub use metrics::MetricsFile;
pub use output_check::{OutputCheck, StreamsInUse, is_stderr_protected};
pub use plan::Plan;
pub use platform::{FirmwareTables, GuestPlan, HostCpuError, RegisterConflict};
pub use restoring::Restore;
pub use signals::outlive_file_limits;
pub use step_times::StepTimes;
pub use supervisor::{Commander, Confine, Offloaded, Run, RunError, Service, Start, Supervisor, Timeouts};
pub use virtio::{TransportPlan, VirtioPlan};
/// How a guest can end its machine.
pub use vmm_bus::SystemEvent;
/// A guest's crash, and the count of its exits.
pub use vmm_vcpu::{Crash, CrashCause, Summary};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
