//! KVM's ioctls: the only crate of the workspace that issues them.
//!
//! - [`Kvm`] is the open `/dev/kvm`: it queries the host's capabilities and creates VMs;
//! - [`Vm`] is a virtual machine: its memory slots, in-kernel interrupt controllers, irqfds and ioeventfds;
//! - [`KvmVcpu`] is a vCPU: its registers, and [`KvmVcpu::run`], which enters the guest and returns an
//!   [`Exit`];
//! - [`VcpuState`] is a vCPU's complete state as a value;
//! - [`ImmediateExit`] makes a vCPU that runs on another thread exit.
//!
//! The first three provide their file descriptor ([`AsFd`](std::os::fd::AsFd)), for ioctls that have no
//! method here.
//!
//! A failed ioctl is an [`Error::Ioctl`] with the ioctl's name in KVM's api.rst.
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
//! # A vCPU that starts a kernel
//!
//! [`Vm::create_boot_vcpu`] does all that a kernel expects of the processor. Only the order matters: KVM's own hardware comes
//! before the vCPUs, and so does the guest's memory.
//!
//! ```no_run
//! # use vmm_arch::boot::EntryPoint;
//! # use vmm_kvm::{Kvm, KvmVcpu, ReservedPages};
//! # use vmm_memory::GuestRam;
//! # fn start(ram: &GuestRam, entry: EntryPoint) -> Result<KvmVcpu, vmm_kvm::Error> {
//! let kvm = Kvm::open()?;
//! let vm = kvm.create_vm()?;
//! vm.set_reserved_pages(ReservedPages::default())?;
//! vm.create_irqchip_and_pit()?;
//! vm.add_memory(ram)?;
//! vm.create_boot_vcpu(&kvm, entry)
//! # }
//! ```
//!
//! # A vCPU's state
//!
//! KVM has a dozen ioctls for the parts of a vCPU's state, and their order matters: an MSR that CPUID doesn't
//! report is refused, setting the general-purpose registers clears a pending exception, and a timer that
//! isn't in TSC-deadline mode ignores its deadline. [`KvmVcpu::state`] and [`KvmVcpu::set_state`] therefore
//! read and set the complete state. To start a vCPU, get its state, change it and set it, as above. To copy a
//! paused vCPU:
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
//! The states of all vCPUs and the [`VmState`] are set by [`Vm::restore`], which keeps the vCPUs' TSCs equal. Each is also a section
//! of a snapshot ([`State`](vmm_snapshot::State)).
//!
//! [`Kvm::msr_indices`] returns KVM's own list plus the MSRs that it omits depending on version and host.
//! Starting a vCPU reads none of them and sets a few: the TSC must keep the value that KVM gave it.
//! [`KvmVcpu::set_regs`] and [`KvmVcpu::set_sregs`] set only one part, for simple monitors and for debuggers.

mod capability;
mod descriptors;
mod dirty_log;
mod error;
mod event_fd;
mod exit;
mod guest_memory;
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
/// The kernel's structures, in the version that this crate's API uses.
pub use kvm_bindings;
pub use statistics::{Statistic, Statistics, StatisticsFile};
pub use system::Kvm;
pub use vcpu::KvmVcpu;
pub use vm::{Vm, WriteAddress};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    BUILD_CALLS, BreakOn, Breakpoints, ClockPolicy, ClockState, DebugStop, FIRST_MSI_GSI, HardwareBreakpoint,
    IrqchipState, MESSAGE_CALLS, MsiRoute, NestedState, PitState, RESTORE_CALLS, ReservedPages, SAVE_CALLS,
    StopCause, VCPU_CALLS, VCPU_STATE_CALLS, VcpuReport, VcpuState, VmState, WatchLen,
};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
