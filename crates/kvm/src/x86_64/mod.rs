//! What a VM and a vCPU are on x86_64.

mod crash;
mod platform;
mod registers;

pub use crash::CrashReport;
pub(crate) use platform::REQUIRED;
