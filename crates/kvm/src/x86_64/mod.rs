//! The x86_64 parts of VMs and vCPUs.

mod boot_vcpu;
mod breakpoints;
mod chips;
mod clock;
mod debug;
mod interrupts;
mod msrs;
mod nested;
mod platform;
mod registers;
mod report;
mod required;
mod restore;
mod routing;
mod state;
mod state_lens;
mod system_calls;
mod uapi;
mod vcpu_section;
mod xsave;

pub(crate) use breakpoints::GuestDebug;
pub use breakpoints::{BreakOn, Breakpoints, DebugStop, HardwareBreakpoint, StopCause, WatchLen};
pub use chips::{IrqchipState, PitState};
pub use clock::{ClockPolicy, ClockState};
pub use nested::NestedState;
pub use platform::ReservedPages;
pub use report::VcpuReport;
pub(crate) use required::REQUIRED;
pub use restore::VmState;
pub use routing::{FIRST_MSI_GSI, MsiRoute};
pub use state::VcpuState;
pub(crate) use state_lens::StateLens;
pub use system_calls::{BUILD_CALLS, MESSAGE_CALLS, RESTORE_CALLS, SAVE_CALLS, VCPU_CALLS, VCPU_STATE_CALLS};
