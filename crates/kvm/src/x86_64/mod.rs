//! What a VM and a vCPU are on x86_64.

mod debug;
mod interrupts;
mod msrs;
mod nested;
mod platform;
mod registers;
mod report;
mod state;
mod xsave;

pub(crate) use debug::GuestDebug;
pub use debug::{BreakOn, Breakpoints, DebugStop, HardwareBreakpoint, StopCause, WatchLen};
pub use nested::NestedState;
pub(crate) use platform::REQUIRED;
pub use report::VcpuReport;
pub(crate) use state::StateLens;
pub use state::VcpuState;
