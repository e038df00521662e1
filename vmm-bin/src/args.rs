//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use vmm_config::{ConfigError, Flag, Overrides};

const EXAMPLES: &str = "\
Examples:
  vmm-bin --config vm.json                      boot what the config describes
  vmm-bin --config vm.json --memory 1G          the same with more memory
  vmm-bin --kernel vmlinuz --initrd initrd.gz   boot without a config
  vmm-bin --config vm.json --check              print the machine's plan and start nothing
  vmm-bin doctor                                say what this host lacks

On a terminal, Ctrl-A x quits and Ctrl-A a sends a Ctrl-A to the guest.

Exit codes: 0 the guest ended itself, or Ctrl-A x; 1 internal error; 2 usage; 3 bad config, kernel, initrd
or serial target; 4 this host can't; 5 the guest crashed; 128+n ended by signal n.";

/// Boots a stock Linux kernel in a KVM virtual machine, with the serial console on this terminal.
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
    /// Print the plan (memory map, addresses, entry, command line) and start nothing
    #[arg(long)]
    pub(crate) check: bool,
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
    /// The flags that override the config, checked.
    pub(crate) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flags = [
            (Flag::Kernel, &self.kernel),
            (Flag::Initrd, &self.initrd),
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
