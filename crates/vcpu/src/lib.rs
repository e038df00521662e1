//! The run loop of a vCPU, its call-backs, and the thread that it runs on.
//!
//! - [`Cpu`] is what the loop runs: [`vmm_kvm::KvmVcpu`], or a script in a test;
//! - [`ExitHandler`] has a call-back for each kind of exit, each with a default;
//! - [`run`] is the loop, on the caller's thread;
//! - [`VcpuThread`] is the loop on a thread of its own, with a handle to pause, resume, look at and stop it;
//! - [`VcpuThreads`] are those of a whole machine, which pause and stop together;
//! - [`Traced`] and [`SingleStepped`] are handlers around yours, that show what happens; [`Summary`] counts;
//! - [`BusHandler`] is a handler whose answers are those of the devices on two buses of vmm-bus.
//!
//! No device and no config is needed: this crate stands on vmm-kvm, and on vmm-bus for [`BusHandler`]. `examples/` has programs
//! to start from.
//!
//! A machine that prints what the guest writes to port 0xe9:
//!
//! ```no_run
//! use vmm_kvm::Kvm;
//! use vmm_memory::GuestRam;
//! use vmm_memory::vm_memory::{Bytes, GuestAddress};
//! use vmm_vcpu::{End, ExitHandler, Flow, run};
//!
//! struct Say;
//! impl ExitHandler for Say {
//!     type Stop = ();
//!     fn outb(&mut self, _port: u16, value: u8) -> Flow<()> {
//!         print!("{}", char::from(value));
//!         Flow::Enter
//!     }
//! }
//!
//! let vm = Kvm::open()?.create_vm()?;
//! let ram = GuestRam::new(&[0..0x1000])?;
//! ram.memory().write_slice(b"\xb0!\xe6\xe9\xf4", GuestAddress(0))?; // mov al,'!'; out 0xe9,al; hlt
//! vm.add_memory(&ram)?;
//! let mut vcpu = vm.create_vcpu(0)?;
//! let mut sregs = vcpu.sregs()?;
//! (sregs.cs.base, sregs.cs.selector) = (0, 0);
//! vcpu.set_sregs(&sregs)?;
//! let mut regs = vcpu.regs()?;
//! regs.rip = 0;
//! vcpu.set_regs(&regs)?;
//! assert!(matches!(run(&mut vcpu, &mut Say)?, End::Halted(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cpu;
mod end;
mod flow;
mod platform;
mod run_loop;
mod summary;
mod thread;
mod threads;
mod trace;

pub use cpu::{Cpu, Kick};
pub use end::{Crash, End};
pub use flow::{Entry, Flow};
pub use platform::{BusHandler, CrashCause, ExitHandler, ExitKind, SingleStepped, Steps, Traced};
pub use run_loop::run;
pub use summary::Summary;
pub use thread::{Error, Pausing, VcpuThread};
pub use threads::VcpuThreads;
pub use trace::{Trace, TracedExit};
/// What a vCPU's thread writes at its end, and what irqfd and ioeventfd take.
pub use vmm_bus::EventFd;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
