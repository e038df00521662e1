//! What depends on the processor's architecture: which exits there are, and who answers them. Another architecture is another
//! module beside the one that is here, with the same names.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{BusHandler, CrashCause, ExitHandler, ExitKind, SingleStepped, Steps, Traced};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{answer, instruction_pointer};
