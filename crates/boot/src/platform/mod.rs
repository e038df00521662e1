//! What depends on the processor's architecture: the formats of kernels, how they are entered, and what they are told. Another
//! architecture is another module beside the one that is here, with the same names.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
