//! Bare-metal guests in the real monitor, on any usable /dev/kvm, otherwise in the rig.

mod articles;
mod boot;
mod commands;
mod common;
mod control;
mod cpu_features;
mod crash;
mod delivery;
mod escape;
mod escape_command;
mod examples;
mod failing_disk;
mod file_memory;
mod flags;
mod flat;
mod frozen;
mod hanging_storage;
mod host;
mod idle;
mod input;
mod leftovers;
mod library;
mod log;
mod losses;
mod memory;
mod newest_libc;
mod output;
mod output_files;
mod own_device;
mod pause;
mod paused_machine;
mod pmem;
mod sandbox;
mod serial;
mod smp;
mod snapshot;
mod snapshot_disks;
mod state;
mod status;
mod step;
mod stress;
mod terminal;
mod virtio;

use std::process::ExitCode;

use driver::guests;
use harness::Needs;
use libtest_mimic::Trial;

fn tests() -> Vec<Trial> {
    let tests = [
        input::tests(),
        terminal::tests(),
        output::tests(),
        output_files::tests(),
        idle::tests(),
        pause::tests(),
        paused_machine::tests(),
        pmem::tests(),
        commands::tests(),
        control::tests(),
        snapshot::tests(),
        snapshot_disks::tests(),
        own_device::tests(),
        crash::tests(),
        delivery::tests(),
        flags::tests(),
        flat::tests(),
        frozen::tests(),
        hanging_storage::tests(),
        articles::tests(),
        library::tests(),
        failing_disk::tests(),
        file_memory::tests(),
        memory::tests(),
        boot::tests(),
        serial::tests(),
        sandbox::tests(),
        smp::tests(),
        virtio::tests(),
        host::tests(),
        log::tests(),
        losses::tests(),
        leftovers::tests(),
        state::tests(),
        cpu_features::tests(),
        step::tests(),
        stress::tests(),
        escape::tests(),
        escape_command::tests(),
        examples::tests(),
    ];
    tests.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let prepare = || {
        guests::all()?;
        articles::build()?;
        driver::build_examples();
        Ok(())
    };
    let tests = [tests(), newest_libc::tests(tests())];
    harness::run(tests.into_iter().flatten().collect(), Needs::AnyKvm, prepare)
}
