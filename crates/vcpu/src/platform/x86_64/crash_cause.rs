//! Causes of a guest's crash on x86_64.

use std::fmt;

use vmm_kvm::EmulationFailure;

/// Why a guest can't continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// An exception on entry to the double fault handler, which shuts the processor down (KVM_EXIT_SHUTDOWN).
    TripleFault,
    /// KVM can't emulate an instruction (KVM_INTERNAL_ERROR_EMULATION).
    Emulation(EmulationFailure),
    /// Another KVM_INTERNAL_ERROR_*, by its suberror.
    Internal(u32),
    /// The processor rejected the guest's state (KVM_EXIT_FAIL_ENTRY), with this hardware-specific reason.
    Entry(u64),
    /// An exit that isn't handled, by its reason, KVM_EXIT_*.
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
            Self::Entry(reason) => {
                write!(f, "the processor failed to enter the guest, hardware reason {reason:#x}")
            }
            Self::UnexpectedExit(reason) => write!(f, "unexpected exit, KVM exit reason {reason}"),
        }
    }
}
