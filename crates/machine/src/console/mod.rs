//! The host's side of the guest's lines, COM1 and virtio consoles: moves bytes between each and a terminal, a pipe, a file, a
//! pty or a socket.
//!
//! ```text
//!            read, at most the room of the line        send
//!   input fd ------------------------------------> typed -------> dyn Line: Uart, HostPort
//!                                                                  | take
//!   output fd <-------------------- one chunk <--------------------+
//! ```
//! Both directions have flow control: an input fd leaves epoll while the line has no room, an output fd is in epoll only while
//! a chunk can't be written. At most one chunk is buffered each way. The exception is a terminal: its input is always read,
//! because the monitor's keys are part of it.

mod begin;
mod departed;
mod keys;
mod line;
mod link;
mod name;
mod open;
mod pace;
mod peer;
mod pty;
mod socket;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod typed;

pub(crate) use begin::begin_all;
#[cfg(test)]
pub(crate) use open::open_now;
pub(crate) use open::{ConsolePort, Lines, check_stdio, ends, open_all};
pub use peer::OpenError;
pub(crate) use source::Console;
pub(crate) use target::OpenTargets;
