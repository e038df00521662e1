//! x86_64, as a PC.

pub mod boot;
pub mod cpuid;
pub mod e820;
pub mod flat;
pub mod layout;
pub mod mptable;
pub mod msr;
mod segments;
pub mod topology;
