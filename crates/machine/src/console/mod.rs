//! The host's side of the UART: moves bytes between it and a terminal, a pipe, a file, a pty or a socket.
//!
//! ```text
//!            read, at most the room in the FIFO            send
//!   input fd ------------------------------------> keys --------> Uart
//!                                                                  | take
//!   output fd <-------------------- one chunk <--------------------+
//! ```
//! Both directions stop where the other side is slow: an input fd leaves epoll while the FIFO is full, an
//! output fd enters it while the chunk doesn't go out. Nothing is buffered beyond one chunk each way.

mod keys;
mod peer;
mod source;

pub use peer::OpenError;
pub(crate) use source::Console;
