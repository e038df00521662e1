//! What the run loop runs.

use std::sync::Arc;

use vmm_kvm::{Exit, ImmediateExit, KvmVcpu, VcpuReport};

use crate::platform;

/// A processor, as the run loop sees it.
pub trait Cpu: Send {
    /// Enters the guest until it needs us, or until [`kick`](Self::kick)'s flag is set. Completes the access
    /// of the previous exit first, also when it returns at once.
    ///
    /// # Errors
    /// The processor can't run.
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error>;

    /// Completes the access of the previous exit and doesn't enter the guest. [`Exit::Interrupted`] means that it is complete;
    /// any other exit is the next one of the same instruction, or the end of a single step.
    ///
    /// # Errors
    /// The processor can't run.
    fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error>;

    /// Called when a pause ends: tells the guest about it, so that its watchdog doesn't report a hung processor.
    fn notify_pause(&mut self);

    /// The flag that makes [`run`](Self::run) return.
    fn kick(&self) -> Arc<dyn Kick>;

    /// The state that it is in.
    fn report(&self) -> VcpuReport;

    /// The instruction pointer; `None` where it can't be read.
    fn instruction_pointer(&self) -> Option<u64>;
}

/// Makes [`Cpu::run`] return with [`Exit::Interrupted`], once it is also signalled.
pub trait Kick: Send + Sync {
    /// From now on.
    fn set(&self);
    /// No longer.
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
    fn instruction_pointer(&self) -> Option<u64> {
        platform::instruction_pointer(self)
    }
}
