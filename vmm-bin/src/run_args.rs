//! The arguments of a run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::ArgAction;
use vmm_config::{ConfigError, Flag, Overrides, Timeout};
use vmm_machine::{Diagnostics, Timeouts, WatchExits};

use crate::help_headings::{DIAGNOSTICS, RUN, SANDBOX};
use crate::streams::Streams;

/// How a machine is run, whether it is booted or restored.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Build the machine and pause it before its first instruction; Ctrl-A p starts it
    #[arg(long, help_heading = RUN)]
    pub(crate) paused: bool,
    /// End the run after this time, such as 5s, with exit code 124
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = RUN)]
    timeout: Option<Timeout>,
    /// How long the guest may take to shut down after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = RUN)]
    shutdown_timeout: Option<Timeout>,
    /// Unix socket at which the monitor accepts commands, for `vmm-bin ctl`
    #[arg(long, value_name = "PATH", help_heading = RUN)]
    control: Option<OsString>,
    /// How the monitor confines itself: on (as far as the host allows), required (completely, or fail), off, or log (forbidden
    /// system calls are logged and carried out) [default: on]
    #[arg(long, value_name = "HOW", help_heading = SANDBOX)]
    sandbox: Option<OsString>,
    /// User to which a monitor changes that root starts [default: 65534]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = SANDBOX)]
    uid: Option<OsString>,
    /// Group to which a monitor changes that root starts [default: 65534]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = SANDBOX)]
    gid: Option<OsString>,
    /// Print every VM exit to standard error, or a summary with KVM's own statistics at the end
    #[arg(long, value_name = "lines|summary", num_args = 0..=1, require_equals = true, default_missing_value = "lines", help_heading = DIAGNOSTICS)]
    trace_exits: Option<WatchExits>,
    /// Print the registers before each of the first N instructions to standard error
    #[arg(long, value_name = "N", value_parser = steps, allow_hyphen_values = true, default_value_t = 0, hide_default_value = true, help_heading = DIAGNOSTICS)]
    step: u64,
    /// Write the devices' counters to this file as JSON, at the end and on SIGUSR1
    #[arg(long, value_name = "FILE", help_heading = DIAGNOSTICS)]
    pub(crate) metrics: Option<PathBuf>,
    /// Log more: -v for the machine's lifecycle, -vv for details
    #[arg(short, action = ArgAction::Count, help_heading = DIAGNOSTICS)]
    pub(crate) verbose: u8,
    /// Log to a file instead of standard error
    #[arg(long, value_name = "FILE", help_heading = DIAGNOSTICS)]
    pub(crate) log_file: Option<PathBuf>,
}

impl RunArgs {
    /// The diagnostics that were requested, printed to standard error.
    pub(crate) fn diagnostics(&self, streams: &Streams) -> Diagnostics {
        let lines = Some(streams.stderr.clone());
        Diagnostics { exits: self.trace_exits, steps: self.step, lines }
    }

    /// The timeouts of a run that began at `started`.
    pub(crate) fn timeouts(&self, started: Instant) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            // A deadline that an `Instant` can't represent is never reached.
            run: self.timeout.and_then(|timeout| started.checked_add(timeout.get())),
            shutdown: self.shutdown_timeout.map_or(default.shutdown, |timeout| timeout.get()),
        }
    }

    /// The flags that override the config.
    pub(crate) fn flags(&self) -> [(Flag, &Option<OsString>); 4] {
        [
            (Flag::Control, &self.control),
            (Flag::Sandbox, &self.sandbox),
            (Flag::Uid, &self.uid),
            (Flag::Gid, &self.gid),
        ]
    }

    /// The flags that override the config of a snapshot.
    ///
    /// # Errors
    /// The first flag whose value is invalid.
    pub(crate) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let mut overrides = Overrides::default();
        for (flag, text) in self.flags() {
            text.as_ref().map_or(Ok(()), |text| overrides.set(flag, text))?;
        }
        Ok(overrides)
    }
}

/// Parses the number of instructions of `--step`.
fn steps(text: &str) -> Result<u64, String> {
    let refused = |_| format!("{text:?} is not a number of instructions, write one such as 100");
    text.parse().map_err(refused)
}
