//! How a vCPU continues after an exit, and how KVM_RUN is entered.

use std::convert::Infallible;

/// What to do after an exit has been handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the vCPU may have to be held or stopped"]
pub enum Flow<S> {
    /// Enter the guest again.
    Enter,
    /// Don't enter the guest until [`VcpuThread::wake`](crate::VcpuThread::wake) is called. The exit has been handled, but there
    /// is no room for more.
    Hold,
    /// End the vCPU, for this reason.
    Stop(S),
}

impl<S> Flow<S> {
    /// Combines two results: `Stop` takes precedence over `Hold`, and `Hold` over `Enter`. Of two stops, the first is kept.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Stop(reason), _) | (_, Self::Stop(reason)) => Self::Stop(reason),
            (Self::Hold, _) | (_, Self::Hold) => Self::Hold,
            (Self::Enter, Self::Enter) => Self::Enter,
        }
    }

    /// Converts the reason of a `Stop` with `reason`.
    pub fn map<T>(self, reason: impl FnOnce(S) -> T) -> Flow<T> {
        match self {
            Self::Enter => Flow::Enter,
            Self::Hold => Flow::Hold,
            Self::Stop(stop) => Flow::Stop(reason(stop)),
        }
    }
}

impl Flow<Infallible> {
    /// Converts to a `Flow` with any reason to stop.
    pub fn widen<S>(self) -> Flow<S> {
        self.map(|never| match never {})
    }
}

/// How KVM_RUN is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Complete the access of the previous exit, then run the guest.
    Guest,
    /// Only complete the access of the previous exit. An instruction with several accesses exits again for the next one. When the
    /// last is complete, the registers are those after the instruction.
    CompleteAccess,
}
