//! What a guest dies of on x86_64.

use std::fmt;

use vmm_kvm::EmulationFailure;

/// What a guest died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// An exception while the double fault handler was entered: the processor shut down.
    TripleFault,
    /// An instruction that KVM can't emulate.
    Emulation(EmulationFailure),
    /// Another KVM_INTERNAL_ERROR_*.
    Internal(u32),
    /// The processor refused the state, with this reason.
    Entry(u64),
    /// An exit that nobody asked for, KVM_EXIT_*.
    UnexpectedExit(u32),
}

impl fmt::Display for CrashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => write!(f, "triple fault"),
            Self::Emulation(failure) if failure.instruction().is_empty() => {
                write!(f, "instruction pointer outside of memory")
            }
            Self::Emulation(failure) => write!(f, "KVM can't emulate the instruction {failure}"),
            Self::Internal(suberror) => write!(f, "KVM internal error, suberror {suberror}"),
            Self::Entry(reason) => write!(f, "the processor refused to enter the guest, reason {reason:#x}"),
            Self::UnexpectedExit(reason) => write!(f, "unexpected exit, KVM_EXIT reason {reason}"),
        }
    }
}
