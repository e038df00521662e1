//! What depends on the processor's architecture: the kinds of exits and their call-backs. Another architecture is another module
//! with the same names.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{BusHandler, CrashCause, ExitHandler, ExitKind, SingleStepped, Steps, Traced};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{enter, instruction_pointer};
