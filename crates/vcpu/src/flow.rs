//! How a vCPU goes on: what a handler says after an exit, and how KVM_RUN is entered.

use std::convert::Infallible;

/// What to do after an exit has been handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest may want to be held, or its end"]
pub enum Flow<S> {
    /// Enter the guest again.
    Enter,
    /// Enter it when somebody calls [`VcpuThread::wake`](crate::VcpuThread::wake). The exit is answered; only there is no
    /// room for what would come next.
    Hold,
    /// Never again, for this reason.
    Stop(S),
}

impl<S> Flow<S> {
    /// The stronger of both: a stop before a hold before nothing, and the first of two stops.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Stop(reason), _) | (_, Self::Stop(reason)) => Self::Stop(reason),
            (Self::Hold, _) | (_, Self::Hold) => Self::Hold,
            (Self::Enter, Self::Enter) => Self::Enter,
        }
    }

    /// The same, with a stop's reason replaced by what `reason` makes of it.
    pub fn map<T>(self, reason: impl FnOnce(S) -> T) -> Flow<T> {
        match self {
            Self::Enter => Flow::Enter,
            Self::Hold => Flow::Hold,
            Self::Stop(stop) => Flow::Stop(reason(stop)),
        }
    }
}

impl Flow<Infallible> {
    /// The same, where a stop is possible.
    pub fn widen<S>(self) -> Flow<S> {
        self.map(|never| match never {})
    }
}

/// How KVM_RUN is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The guest runs, when the access of the previous exit is complete.
    Guest,
    /// Only the access of the previous exit is completed. An instruction with several accesses leaves for the next one.
    /// Afterwards the registers are those after the instruction.
    CompleteAccess,
}
