//! Why a vCPU runs no more.

use vmm_kvm::VcpuReport;

use crate::CrashCause;

/// Why a vCPU runs no more. `S` is the handler's own reason.
#[derive(Debug)]
pub enum End<S> {
    /// The handler ended it.
    Asked(S),
    /// `hlt`, on a machine without in-kernel interrupt controllers, in this state.
    Halted(Box<VcpuReport>),
    /// The guest is beyond rescue.
    Crashed(Box<Crash>),
    /// It was told to stop, or [`run`](crate::run) was interrupted.
    Stopped,
}

/// A guest's death.
#[derive(Debug)]
pub struct Crash {
    /// What it died of.
    pub cause: CrashCause,
    /// The state of its processor.
    pub report: VcpuReport,
}
