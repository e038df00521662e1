//! The only crate of the workspace that speaks KVM's ioctls.
//!
//! - [`Kvm`] is the opened `/dev/kvm`: what the host can do, and the way to a VM;
//! - [`Vm`] is one virtual machine: its memory slots, its in-kernel interrupt controllers, its irqfds and
//!   ioeventfds;
//! - [`KvmVcpu`] is one virtual processor: its registers, and [`KvmVcpu::run`], which enters the guest and
//!   returns with an [`Exit`];
//! - [`VcpuState`] is all of a vCPU's state as a value;
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
//! let mut state = vcpu.state(&[])?;
//! state.sregs.cs.base = 0;
//! state.sregs.cs.selector = 0;
//! state.regs.rip = 0;
//! vcpu.set_state(&state)?;
//! assert!(matches!(vcpu.run()?, Exit::Halt));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A vCPU's state
//!
//! KVM has a dozen ioctls for the parts of a vCPU's state, and an order for them: an MSR that CPUID doesn't have is refused, general
//! registers clear a pending exception, a timer that isn't in its mode yet ignores its deadline. So a vCPU's state is read and set
//! whole, by [`KvmVcpu::state`] and [`KvmVcpu::set_state`]. A start is: get, change, set, as above. So is a copy of a paused vCPU:
//!
//! ```no_run
//! # use vmm_kvm::{Error, Kvm, KvmVcpu};
//! # fn copy(kvm: &Kvm, paused: &KvmVcpu, new: &KvmVcpu) -> Result<(), Error> {
//! let state = paused.state(&kvm.msr_indices()?)?;
//! new.set_state(&state)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Kvm::msr_indices`] are KVM's own list and the registers that it leaves out depending on version and host. A start reads none of
//! them and sets a few: the TSC must keep the value that KVM gave it. [`KvmVcpu::set_regs`] and [`KvmVcpu::set_sregs`] set one part,
//! for a monitor that needs no more, or for a debugger.

mod capability;
mod descriptors;
mod dirty_log;
mod error;
mod exit;
mod held;
mod immediate_exit;
mod ioctls;
mod statistics;
mod system;
mod vcpu;
mod vm;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use capability::Capability;
pub use dirty_log::DirtyPages;
pub use error::Error;
pub use exit::{EmulationFailure, Exit};
pub use immediate_exit::ImmediateExit;
/// The kernel's structures, in the version that this crate takes and gives.
pub use kvm_bindings;
pub use statistics::{Statistic, Statistics, StatisticsFile};
pub use system::Kvm;
pub use vcpu::KvmVcpu;
pub use vm::{Vm, WriteAddress};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    BreakOn, Breakpoints, DebugStop, HardwareBreakpoint, NestedState, StopCause, VcpuReport, VcpuState,
    WatchLen,
};
