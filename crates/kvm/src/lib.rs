//! The only crate of the workspace that speaks KVM's ioctls.
//!
//! - [`Kvm`] is the opened `/dev/kvm`: what the host can do, and the way to a VM;
//! - [`Vm`] is one virtual machine: its memory slots, its in-kernel interrupt controllers, its irqfds and
//!   ioeventfds;
//! - [`KvmVcpu`] is one virtual processor: its registers, and [`KvmVcpu::run`], which enters the guest and
//!   returns with an [`Exit`];
//! - [`ImmediateExit`] makes a vCPU that another thread runs come back.
//!
//! All three give their descriptor ([`AsFd`](std::os::fd::AsFd)), for ioctls that have no method here.
//!
//! Every failed ioctl is an [`Error::Ioctl`] with the ioctl's name in KVM's api.rst.
//!
//! ```no_run
//! use vmm_kvm::{Exit, Kvm};
//! use vmm_memory::GuestRam;
//! use vmm_memory::vm_memory::{Bytes, GuestAddress};
//!
//! let vm = Kvm::open()?.create_vm()?;
//! let ram = GuestRam::new(&[0..0x1000])?;
//! ram.memory().write_slice(&[0xf4], GuestAddress(0))?; // hlt
//! vm.add_memory(&ram)?;
//!
//! let mut vcpu = vm.create_vcpu(0)?;
//! let mut sregs = vcpu.sregs()?;
//! sregs.cs.base = 0;
//! sregs.cs.selector = 0;
//! vcpu.set_sregs(&sregs)?;
//! let mut regs = vcpu.regs()?;
//! regs.rip = 0;
//! vcpu.set_regs(&regs)?;
//! assert!(matches!(vcpu.run()?, Exit::Halt));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod descriptors;
mod dirty_log;
mod error;
mod exit;
mod immediate_exit;
mod ioctls;
mod statistics;
mod system;
mod vcpu;
mod vm;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use dirty_log::DirtyPages;
pub use error::Error;
pub use exit::{EmulationFailure, Exit};
pub use immediate_exit::ImmediateExit;
/// The kernel's structures, in the version that this crate takes and gives.
pub use kvm_bindings;
pub use statistics::{Statistic, Statistics, StatisticsFile};
pub use system::{Capability, Kvm};
pub use vcpu::KvmVcpu;
pub use vm::{Vm, WriteAddress};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    BreakOn, Breakpoints, DebugStop, HardwareBreakpoint, NestedState, StopCause, VcpuReport, VcpuState,
    WatchLen,
};
