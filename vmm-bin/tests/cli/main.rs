//! The command line interface: output, error messages and exit codes. Nothing here needs a working KVM.

mod bare;
mod bench;
mod cmdline;
mod config;
mod console;
mod ctl;
mod devices;
mod fields;
mod flags;
mod flat;
mod host;
mod initrd;
mod kernel;
mod outputs;
mod snapshot;
mod terminal;
mod usage;
