//! What a VM and a vCPU are on x86_64.

mod debug;
mod platform;
mod registers;
mod report;

pub(crate) use platform::REQUIRED;
pub use report::VcpuReport;
