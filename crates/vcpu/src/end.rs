//! Why a vCPU has ended.

use vmm_kvm::VcpuReport;

use crate::CrashCause;

/// Why a vCPU has ended. `S` is the handler's reason.
#[derive(Debug)]
pub enum End<S> {
    /// The handler returned [`Flow::Stop`](crate::Flow::Stop).
    Asked(S),
    /// `hlt` on a machine without in-kernel interrupt controllers, with the processor's state.
    Halted(Box<VcpuReport>),
    /// The guest can't continue.
    Crashed(Box<Crash>),
    /// [`VcpuThread::stop`](crate::VcpuThread::stop) was called, or a signal interrupted [`run`](crate::run).
    Stopped,
}

/// Why a guest can't continue, and its state.
#[derive(Debug)]
pub struct Crash {
    /// The exit that ended the guest.
    pub cause: CrashCause,
    /// Registers and code of the vCPU that crashed.
    pub report: VcpuReport,
}
