//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use vmm_config::{ConfigError, Flag, Overrides};

use crate::bare::BareArguments;
use crate::ctl_args::Arguments;
use crate::help_headings::{BOOT, FLAT, MACHINE, RUN};
use crate::restore_args::RestoreArgs;
use crate::run_args::RunArgs;

const EXAMPLES: &str = include_str!("help.txt");

/// Runs a stock Linux kernel or a bare-metal image in a KVM virtual machine, with the serial console on this terminal.
#[derive(Debug, Parser)]
#[command(name = "vmm-bin", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Kernel, same as --kernel
    #[arg(value_name = "KERNEL")]
    bare_kernel: Option<OsString>,
    /// Initial RAM disk, same as --initrd
    #[arg(value_name = "INITRD")]
    bare_initrd: Option<OsString>,
    /// Excess arguments, accepted here so that the program can report them with a hint.
    #[arg(hide = true)]
    bare_further: Vec<OsString>,
    /// JSON config of the machine; flags override it
    #[arg(long, value_name = "FILE", help_heading = BOOT)]
    pub(crate) config: Option<PathBuf>,
    /// Kernel: an ELF vmlinux or a bzImage
    #[arg(long, value_name = "FILE", help_heading = BOOT)]
    kernel: Option<OsString>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = BOOT)]
    initrd: Option<OsString>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = BOOT)]
    cmdline: Option<OsString>,
    /// Boot protocol: auto, linux64, linux32 or pvh
    #[arg(long, value_name = "NAME", help_heading = BOOT)]
    protocol: Option<OsString>,
    /// Flat image, instead of a kernel: raw, ELF or multiboot
    #[arg(long, value_name = "FILE", help_heading = FLAT)]
    flat: Option<OsString>,
    /// Processor mode in which it starts: real, reset, protected, paged or long
    #[arg(long, value_name = "NAME", help_heading = FLAT)]
    mode: Option<OsString>,
    /// Address at which it is loaded, such as 0x7c00
    #[arg(long, value_name = "ADDR", allow_hyphen_values = true, help_heading = FLAT)]
    load_address: Option<OsString>,
    /// Address of its first instruction
    #[arg(long, value_name = "ADDR", allow_hyphen_values = true, help_heading = FLAT)]
    entry: Option<OsString>,
    /// Initial stack pointer
    #[arg(long, value_name = "ADDR", allow_hyphen_values = true, help_heading = FLAT)]
    stack: Option<OsString>,
    /// Condition that must hold when it halts: rax=42, 0x400=42 (64 bits) or 0x400:u8=42; may be repeated
    #[arg(long, value_name = "PLACE=VALUE", allow_hyphen_values = true, help_heading = FLAT)]
    expect: Vec<OsString>,
    /// Guest memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = MACHINE)]
    memory: Option<OsString>,
    /// Number of virtual processors
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, help_heading = MACHINE)]
    cpus: Option<OsString>,
    /// Serial console: stdio, pty, none, file:PATH or socket:PATH
    #[arg(long, value_name = "WHERE", help_heading = MACHINE)]
    serial: Option<OsString>,
    /// Whether the machine has interrupt controllers [default: true, but false for a flat image on one processor]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = MACHINE)]
    irqchip: Option<OsString>,
    /// Add a port that prints the bytes written to it, and reads as 0xe9
    #[arg(long, value_name = "PORT", allow_hyphen_values = true, help_heading = MACHINE)]
    debug_console: Option<OsString>,
    /// Add four ports that end the run: writing v exits with code (v << 1) | 1
    #[arg(long, value_name = "PORT", allow_hyphen_values = true, help_heading = MACHINE)]
    debug_exit: Option<OsString>,
    /// Add a port that prints the bytes written to it
    #[arg(long, value_name = "PORT", allow_hyphen_values = true, help_heading = MACHINE)]
    pseudo_serial: Option<OsString>,
    /// Open all files and devices, print the plan (memory map, addresses, entry, command line) and exit without starting a guest
    #[arg(long, help_heading = RUN)]
    pub(crate) check: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the JSON schema of the config, or of the control socket's lines
    Schema {
        /// Whose schema
        #[arg(value_enum, default_value_t = Schema::Config)]
        of: Schema,
    },
    /// Send a command to a running monitor
    Ctl(Arguments),
    /// Check whether this host can run virtual machines, and say how to fix what is missing
    Doctor,
    /// Continue a machine from a snapshot
    Restore(Box<RestoreArgs>),
    /// Describe or verify a snapshot
    #[command(subcommand)]
    Snapshot(crate::snapshot::SnapshotCommand),
}

/// What there is a JSON schema of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Schema {
    /// The config file
    Config,
    /// The lines of a control socket
    Control,
}

impl Args {
    /// How the machine is run.
    pub(crate) fn run(&self) -> &RunArgs {
        match &self.command {
            Some(Command::Restore(restore)) => &restore.run,
            _ => &self.run,
        }
    }

    /// The snapshot to restore.
    pub(crate) fn restore(&self) -> Option<&RestoreArgs> {
        match &self.command {
            Some(Command::Restore(restore)) => Some(restore),
            _ => None,
        }
    }

    /// The positional arguments.
    pub(crate) fn bare(&self) -> BareArguments<'_> {
        BareArguments {
            kernel: self.bare_kernel.as_deref(),
            initrd: self.bare_initrd.as_deref(),
            further: &self.bare_further,
        }
    }

    /// The input files that the arguments name.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = PathBuf> {
        let files = [&self.bare_kernel, &self.bare_initrd, &self.kernel, &self.initrd, &self.flat];
        files.into_iter().flatten().map(PathBuf::from).chain(self.config.clone())
    }

    /// The flags given that name a file which a positional argument could name as well.
    pub(crate) fn given_files(&self) -> Vec<Flag> {
        let files = [(Flag::Kernel, &self.kernel), (Flag::Initrd, &self.initrd), (Flag::Flat, &self.flat)];
        files.into_iter().filter(|(_, file)| file.is_some()).map(|(flag, _)| flag).collect()
    }

    /// The flags that override the config.
    ///
    /// # Errors
    /// The first flag whose value is invalid.
    pub(crate) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flags = [
            (Flag::Kernel, &self.bare_kernel),
            (Flag::Initrd, &self.bare_initrd),
            (Flag::Kernel, &self.kernel),
            (Flag::Initrd, &self.initrd),
            (Flag::Flat, &self.flat),
            (Flag::Cmdline, &self.cmdline),
            (Flag::Protocol, &self.protocol),
            (Flag::Memory, &self.memory),
            (Flag::Cpus, &self.cpus),
            (Flag::Serial, &self.serial),
            (Flag::Irqchip, &self.irqchip),
            (Flag::Mode, &self.mode),
            (Flag::LoadAddress, &self.load_address),
            (Flag::Entry, &self.entry),
            (Flag::Stack, &self.stack),
            (Flag::DebugConsole, &self.debug_console),
            (Flag::DebugExit, &self.debug_exit),
            (Flag::PseudoSerial, &self.pseudo_serial),
        ];
        let given =
            flags.into_iter().chain(self.run.flags()).filter_map(|(flag, text)| Some((flag, text.as_ref()?)));
        let mut overrides = Overrides::default();
        for (flag, text) in given.chain(self.expect.iter().map(|text| (Flag::Expect, text))) {
            overrides.set(flag, text)?;
        }
        Ok(overrides)
    }
}
