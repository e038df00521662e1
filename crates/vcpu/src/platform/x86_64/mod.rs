//! The exits of an x86_64 processor.

mod bus_handler;
mod crash_cause;
mod dispatch;
mod exit_kind;
mod handler;
mod instruction;
mod registers;
mod single_step;
mod traced;

pub use bus_handler::BusHandler;
pub use crash_cause::CrashCause;
pub(crate) use dispatch::enter;
pub use exit_kind::ExitKind;
pub use handler::ExitHandler;
pub(crate) use registers::instruction_pointer;
pub use single_step::{SingleStepped, Steps};
pub use traced::Traced;
