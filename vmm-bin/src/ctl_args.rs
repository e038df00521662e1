//! The arguments of `vmm-bin ctl`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;

/// What to say to which monitor.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The monitor's control socket
    #[arg(value_name = "SOCKET")]
    pub(crate) path: PathBuf,
    #[command(subcommand)]
    pub(crate) request: Request,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Print the machine's state and its devices
    Status,
    /// Stop the vCPUs, and let the devices complete their requests
    Pause,
    /// Resume a paused machine, or start a configured one
    Resume,
    /// Press the power button, which asks the guest to shut down
    PowerButton,
    /// Reset the machine
    Reset,
    /// End the machine and the monitor
    Quit,
    /// Print the devices' counters
    Metrics,
    /// Print events, one a line, until the monitor ends
    Events,
    /// Write a snapshot of the machine
    Snapshot {
        /// Directory that is created for it
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// End the machine and the monitor when the snapshot is complete
        #[arg(long)]
        stop: bool,
        /// Copy the contents of the writable disks into the snapshot
        #[arg(long)]
        disks: bool,
    },
    /// Print a balloon's state, or change it: size=64M
    Balloon(Device),
    /// Print a disk's state, or change it: size=2G
    Block(Device),
    /// Print a network card's state, or change it: link=down
    Net(Device),
    /// Print a console's state, or change it: size=80x24
    Console(Device),
    #[command(external_subcommand)]
    Unknown(Vec<OsString>),
}

/// A device, and what to change.
#[derive(Debug, clap::Args)]
pub(crate) struct Device {
    /// The device's id, if there are several of its kind, and the fields to change: FIELD=VALUE, or FIELD.INNER=VALUE in an object
    #[arg(value_name = "ID|FIELD=VALUE")]
    pub(crate) words: Vec<String>,
}
