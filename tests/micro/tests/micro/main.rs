//! Bare-metal guests in the real monitor, on any /dev/kvm that opens, else in the rig.

mod boot;
mod crash;
mod harness;
mod host;
mod idle;
mod input;
mod leftovers;
mod log;
mod memory;
mod output;
mod pause;
mod serial;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        input::tests(),
        terminal::tests(),
        output::tests(),
        idle::tests(),
        pause::tests(),
        crash::tests(),
        memory::tests(),
        boot::tests(),
        serial::tests(),
        host::tests(),
        log::tests(),
        leftovers::tests(),
    ];
    harness::run(tests.into_iter().flatten().collect())
}
