//! The vCPU thread: a run loop, and a handle with which another thread pauses, resumes and stops it.
//!
//! - [`Cpu`] is what the loop runs: [`vmm_kvm::KvmVcpu`], or a script in a test;
//! - [`ExitHandler`] answers the guest's accesses; [`BusHandler`] does so from a bus of devices, and you may
//!   write your own and use neither bus nor devices of ours;
//! - [`run`] is the loop, on the caller's thread;
//! - [`VcpuThread`] is the loop on a thread of its own, with commands.
//!
//! A thread without a bus, that says what the guest writes to port 0xe9:
//!
//! ```no_run
//! use vmm_kvm::Kvm;
//! use vmm_memory::GuestRam;
//! use vmm_memory::vm_memory::{Bytes, GuestAddress};
//! use vmm_vcpu::{End, ExitHandler, Outcome, run};
//!
//! struct Say;
//! impl ExitHandler for Say {
//!     fn port_out(&mut self, _port: u16, data: &[u8]) -> Outcome {
//!         print!("{}", char::from(data[0]));
//!         Outcome::Done
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
//! assert!(matches!(run(&mut vcpu, &mut Say)?, End::Halted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cpu;
mod handler;
mod run_loop;
mod thread;

pub use cpu::{Cpu, Kick};
pub use handler::{BusHandler, ExitHandler};
pub use run_loop::{Crash, CrashCause, End, run};
pub use thread::{Error, Pausing, VcpuThread, install_kick_signal};
pub use vmm_bus::{Outcome, Power};
