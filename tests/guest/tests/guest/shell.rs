//! The Busybox shell on the guest's console.

use std::time::Duration;

use driver::{DEADLINE, Launch, Monitor};

use crate::linux::{ENDED, InitUp};

/// The end of the shell's prompt (`PS1` in resources/busybox/init).
const PROMPT: &str = "# ";

/// A guest at its shell prompt.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) monitor: Monitor,
    pub(crate) up: InitUp,
}

impl Shell {
    /// Boots a guest to its prompt. Input is echoed.
    #[track_caller]
    pub(crate) fn boot(launch: Launch) -> Self {
        Self::at(launch.start())
    }

    /// Waits for the prompt of the guest of a running monitor.
    #[track_caller]
    pub(crate) fn at(mut monitor: Monitor) -> Self {
        let up = InitUp::expect(&mut monitor);
        monitor.expect(PROMPT, DEADLINE);
        Self { monitor, up }
    }

    /// Turns the echo off, so that from now on only output and prompts arrive.
    #[track_caller]
    pub(crate) fn mute(mut self) -> Self {
        self.monitor.send(b"stty -echo\n");
        // The first prompt without echo follows the echo of the command itself.
        self.monitor.expect("stty -echo", DEADLINE);
        self.monitor.expect(PROMPT, DEADLINE);
        self
    }

    /// Runs a command in a muted shell and returns what it prints.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str) -> String {
        self.run_within(command, DEADLINE)
    }

    /// As [`run`](Self::run), with a longer deadline.
    #[track_caller]
    pub(crate) fn run_within(&mut self, command: &str, deadline: Duration) -> String {
        self.monitor.send(format!("{command}\n").as_bytes());
        let printed = self.monitor.expect(PROMPT, deadline).replace('\r', "");
        // The prompt begins with the directory.
        printed.rsplit_once('\n').map_or(String::new(), |(lines, _)| format!("{lines}\n"))
    }

    /// Ends the guest from inside, by a reboot.
    #[track_caller]
    pub(crate) fn reboot(&mut self) {
        self.monitor.send(b"reboot -f\n");
        self.monitor.expect_code(ENDED, DEADLINE);
    }
}
