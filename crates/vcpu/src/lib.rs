//! The run loop of a vCPU, its call-backs, and its thread.
//!
//! - [`Cpu`] is the interface of a processor: [`vmm_kvm::KvmVcpu`], or a script in tests;
//! - [`ExitHandler`] has a call-back for each kind of exit, each with a default;
//! - [`run`] runs the loop on the caller's thread;
//! - [`VcpuThread`] runs the loop on its own thread, and can be paused, resumed, inspected and stopped;
//! - [`VcpuThreads`] are the threads of a whole machine, which pause and stop together;
//! - [`Traced`] and [`SingleStepped`] wrap a handler, and report exits and instructions; [`Summary`] counts exits;
//! - [`BusHandler`] is a handler that passes accesses to the devices on two buses of vmm-bus.
//!
//! The crate depends only on vmm-kvm, and on vmm-bus for [`BusHandler`] and eventfds; it needs no devices or config. `examples/`
//! has programs to start from.
//!
//! A machine that prints what its guest writes to port 0xe9:
//!
//! ```no_run
//! use vmm_kvm::Kvm;
//! use vmm_memory::GuestRam;
//! use vmm_memory::vm_memory::{Bytes, GuestAddress};
//! use vmm_vcpu::{End, ExitHandler, Flow, run};
//!
//! struct Printer;
//! impl ExitHandler for Printer {
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
//! assert!(matches!(run(&mut vcpu, &mut Printer)?, End::Halted(_)));
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
pub use thread::{Error, PendingPause, VcpuThread};
pub use threads::{StateReaders, VcpuThreads};
pub use trace::{Trace, TracedExit};
/// The eventfd that a vCPU's thread signals when it ends, and the type of irqfds and ioeventfds.
pub use vmm_bus::EventFd;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
