//! Plans a virtual machine, builds it, and runs it on the event loop of the calling thread.
//!
//! ```text
//!   Config --Inputs::open--> Inputs --Plan::new--> Plan --Machine::build--> Machine --run--> Ending
//!            opens files               pure                system calls,              event loop
//!                                                          in one fixed order
//! ```
//! A [`Plan`] holds every address, slot and interrupt of the machine before anything exists; `--check`
//! prints it and golden tests compare it. [`Machine::run`] is the main thread's epoll loop over the console,
//! the signals and the ends of the vCPUs. [`doctor`] says what a host lacks.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use vmm_config::ConfigFile;
//! use vmm_machine::{Diagnostics, Inputs, Machine, Plan};
//!
//! let config = ConfigFile::read(Path::new("vm.json"))?.merge(Default::default())?;
//! // No kinds of virtio devices; vmm-virtio-devices has some.
//! let mut inputs = Inputs::open(&config, &[])?;
//! let plan = Plan::new(&config, &mut inputs)?;
//! println!("{plan}");
//! let machine = Machine::build(plan, inputs, Diagnostics::default())?;
//! let run = machine.run(std::time::Instant::now())?;
//! println!("{}", run.ending);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod acpi;
mod affinity;
mod build;
mod console;
mod deadline;
mod device_log;
mod diagnostics;
pub mod doctor;
mod ending;
mod error;
mod event_loop;
mod expect;
mod fd;
mod file_use;
mod file_writer;
mod guest;
mod handler;
mod host_cpu;
mod inputs;
mod machine;
mod messages;
mod metrics;
mod mptable;
mod output_check;
mod output_file;
mod pause;
mod picture;
mod plan;
mod ranges;
mod signals;
mod vcpus;
mod virtio;
mod watch;

pub use affinity::Affinity;
pub use console::OpenError;
pub use device_log::DeviceLog;
pub use diagnostics::{Diagnostics, ExitReport, WatchExits};
pub use ending::Ending;
pub use error::{Blame, Error};
pub use expect::Mismatch;
pub use file_use::ConfigInUse;
pub use guest::GuestPlan;
pub use handler::{BusHandler, GuestEnd};
pub use inputs::Inputs;
pub use machine::{Machine, Run};
pub use messages::Messages;
pub use metrics::MetricsFile;
pub use output_check::{OutputCheck, StreamsInUse, is_stderr_protected};
pub use plan::{Device, DeviceKind, Plan};
pub use signals::outlive_file_limits;
pub use virtio::VirtioPlan;
/// What the guest can ask of its machine's power.
pub use vmm_bus::Power;
/// How it can die, and how often it left.
pub use vmm_vcpu::{Crash, CrashCause, Summary};
