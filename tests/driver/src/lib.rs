#![forbid(unsafe_code)]

//! Starts the monitor and drives it as users do: at a terminal, through pipes, with files and signals.
//!
//! A [`Launch`] configures the start; the resulting [`Monitor`] is the running program. A [`Line`] is a
//! client of its serial line. [`guests`] are small kernels for it.
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
//! Nothing sleeps: waits react to output, end of output and exit, and each has a deadline. A failed wait
//! panics with all of the program's output. The program is killed when its [`Monitor`] is dropped.

mod ends;
mod example;
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

pub use example::{build_examples, example};
pub use launch::{Launch, Stdin, Stdout};
pub use line::Line;
pub use monitor::Monitor;
pub use process::{wait_until, wait_until_stuck};
pub use program::{
    AGENT_BIN, AS_USER, LIBC_DIR, VMM_BIN, agent_program, build_dynamic_monitor, is_as_user, monitor_program,
};

/// Long enough for anything that takes a moment, even on a slow, busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Long enough for 64 KiB, byte by byte, through a guest in the rig.
pub const BULK_DEADLINE: Duration = Duration::from_secs(300);
