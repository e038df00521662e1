#![forbid(unsafe_code)]

//! Starts the monitor and drives it as its users do: at a terminal, in a pipe, with files and signals.
//!
//! A [`Launch`] says how the program is started; the [`Monitor`] that comes of it is the running program. A [`Line`] is a client of its serial line.
//! [`guests`] are kernels for it of a few instructions.
//!
//! ```no_run
//! use driver::{DEADLINE, Monitor, Stdin};
//!
//! let mut monitor = Monitor::command(["--config", "vm.json"]).stdin(Stdin::Pipe).start();
//! monitor.expect("# ", DEADLINE);
//! monitor.send(b"echo $((6*7))\n");
//! monitor.expect("42", DEADLINE);
//! monitor.send(b"reboot\n");
//! assert_eq!(monitor.expect_exit(DEADLINE).code(), Some(0));
//! ```
//!
//! Nothing sleeps: output, end of output and exit are events that every wait hears of, and each wait has a deadline. A wait
//! that fails panics with all that the program has printed. The program is killed when its [`Monitor`] is dropped.

mod ends;
mod fd;
pub mod guests;
mod launch;
mod line;
mod monitor;
mod process;
mod program;
mod terminal;
mod transcript;

use std::time::Duration;

pub use launch::{Launch, Stdin, Stdout};
pub use line::Line;
pub use monitor::Monitor;
pub use process::{wait_until, wait_until_stuck};
pub use program::{AGENT_BIN, VMM_BIN, agent_program, monitor_program};

/// Long enough for anything that takes a moment, on a slow machine with other work to do.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Long enough for 64 KiB, byte by byte, through a guest in the rig.
pub const BULK_DEADLINE: Duration = Duration::from_secs(300);
