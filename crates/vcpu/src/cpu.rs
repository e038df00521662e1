//! What the run loop runs.

use std::sync::Arc;

use vmm_kvm::{CrashReport, Exit, ImmediateExit, KvmVcpu};

/// A processor, as the run loop sees it.
pub trait Cpu: Send {
    /// Enters the guest until it needs us, or until [`kick`](Self::kick)'s flag is set. Completes the access
    /// of the previous exit first, also when it returns at once.
    ///
    /// # Errors
    /// The processor can't run.
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error>;

    /// The flag that makes [`run`](Self::run) return.
    fn kick(&self) -> Arc<dyn Kick>;

    /// The state of a guest that died.
    fn crash_report(&self) -> CrashReport;
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
    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(self.immediate_exit()) as _
    }
    fn crash_report(&self) -> CrashReport {
        KvmVcpu::crash_report(self)
    }
}
