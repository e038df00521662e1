//! The processor interface of the run loop.

use std::sync::Arc;

use vmm_kvm::{Exit, ImmediateExit, KvmVcpu, VcpuReport, VcpuState};

use crate::platform;

/// A processor that the run loop can run: a vCPU, or a script in tests.
pub trait Cpu: Send {
    /// Enters the guest and runs it until an exit, or until the flag of [`kick`](Self::kick) is set. Always first
    /// completes the access of the previous exit, even if the flag is already set.
    ///
    /// # Errors
    /// KVM_RUN failed for a reason other than an interruption.
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error>;

    /// Completes the access of the previous exit without entering the guest. [`Exit::Interrupted`] means that the access is
    /// complete. Any other exit is the instruction's next access, or the end of a single step.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error>;

    /// Called at the end of a pause. Notifies the guest, so that its watchdog doesn't report a soft lockup.
    fn notify_pause(&mut self);

    /// The flag that makes [`run`](Self::run) return, for other threads.
    fn kick(&self) -> Arc<dyn Kick>;

    /// Registers and code at the instruction pointer, for diagnostics.
    fn report(&self) -> VcpuReport;

    /// The whole state, with these model-specific registers, for a snapshot. Not called while an access is incomplete.
    ///
    /// # Errors
    /// KVM can't read a part of it.
    fn state(&self, registers: &[u32]) -> Result<VcpuState, vmm_kvm::Error>;

    /// The instruction pointer, or `None` if it can't be read.
    fn instruction_pointer(&self) -> Option<u64>;
}

/// A flag that makes [`Cpu::run`] return [`Exit::Interrupted`]. A processor that is already in the guest also needs a signal to
/// its thread.
pub trait Kick: Send + Sync {
    /// Sets the flag, before the signal is sent.
    fn set(&self);
    /// Clears the flag, so that the guest can be entered again.
    fn clear(&self);
}

impl Kick for ImmediateExit {
    fn set(&self) {
        ImmediateExit::set(self);
    }
    fn clear(&self) {
        ImmediateExit::clear(self);
    }
}

impl Cpu for KvmVcpu {
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        KvmVcpu::run(self)
    }
    fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        KvmVcpu::complete_access(self)
    }
    fn notify_pause(&mut self) {
        KvmVcpu::notify_pause(self);
    }
    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(self.immediate_exit()) as _
    }
    fn report(&self) -> VcpuReport {
        KvmVcpu::report(self)
    }
    fn state(&self, registers: &[u32]) -> Result<VcpuState, vmm_kvm::Error> {
        KvmVcpu::state(self, registers)
    }
    fn instruction_pointer(&self) -> Option<u64> {
        platform::instruction_pointer(self)
    }
}
