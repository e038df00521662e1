//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use vmm_config::{ConfigError, Flag, Overrides, Timeout};
use vmm_machine::{Diagnostics, WatchExits};

use crate::streams::Streams;

const EXAMPLES: &str = include_str!("help.txt");

/// Runs a stock Linux kernel or a bare-metal image in a KVM virtual machine, with the serial console on this terminal.
#[derive(Debug, Parser)]
#[command(name = "vmm-bin", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// JSON config of the machine; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Kernel: an ELF vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<OsString>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<OsString>,
    /// Flat image, instead of a kernel: raw, ELF or multiboot
    #[arg(long, value_name = "FILE")]
    flat: Option<OsString>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<OsString>,
    /// Boot protocol: auto, linux64, linux32 or pvh
    #[arg(long, value_name = "NAME")]
    protocol: Option<OsString>,
    /// Guest memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<OsString>,
    /// Number of virtual processors
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    cpus: Option<OsString>,
    /// Serial console: stdio, pty, none, file:PATH or socket:PATH
    #[arg(long, value_name = "WHERE")]
    serial: Option<OsString>,
    /// Print the plan (memory map, addresses, entry, command line) and start no guest; files and virtio devices are opened
    #[arg(long)]
    pub(crate) check: bool,
    /// End the run after this time, such as 5s, with exit code 124
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Timeout>,
    /// Time that a guest has to shut down after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) shutdown_timeout: Option<Timeout>,
    /// Show every exit of the guest on standard error, or a table of them at the end
    #[arg(long, value_name = "lines|summary", num_args = 0..=1, require_equals = true, default_missing_value = "lines")]
    trace_exits: Option<WatchExits>,
    /// Show the registers in front of each of the first N instructions on standard error
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    step: u64,
    /// Write what the devices have counted to this file as JSON, at the end and on SIGUSR1
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
    /// Log more: -v lifecycle, -vv details
    #[arg(short, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log to a file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the JSON schema of the config
    Schema,
    /// Say what this host lacks to run virtual machines, and how to mend it
    Doctor,
}

impl Args {
    /// What to watch of the guest.
    pub(crate) fn diagnostics(&self, is_raw_terminal: bool, streams: &Streams) -> Diagnostics {
        let lines = Some(streams.stderr.clone());
        Diagnostics { exits: self.trace_exits, steps: self.step, is_raw_terminal, lines }
    }

    /// The flags that override the config, checked.
    pub(crate) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flags = [
            (Flag::Kernel, &self.kernel),
            (Flag::Initrd, &self.initrd),
            (Flag::Flat, &self.flat),
            (Flag::Cmdline, &self.cmdline),
            (Flag::Protocol, &self.protocol),
            (Flag::Memory, &self.memory),
            (Flag::Cpus, &self.cpus),
            (Flag::Serial, &self.serial),
        ];
        let mut overrides = Overrides::default();
        for (flag, text) in flags {
            if let Some(text) = text {
                overrides.set(flag, text)?;
            }
        }
        Ok(overrides)
    }
}
