#![forbid(unsafe_code)]

//! Linux in the real monitor, as people run it: on a host whose KVM runs Linux, else in the rig, which boots once for all tests.
//!
//! A boot takes seconds, so that a test makes many checks with one where they have the same subject.

mod boots;
mod endings;
mod host;
mod initrd;
mod input;
mod linux;
mod memory;
mod output;
mod paste;
mod power;
mod session;
mod shell;
mod virtio;

use std::process::ExitCode;

use harness::Needs;
use rig::Assets;

fn main() -> ExitCode {
    let tests = [
        boots::tests(),
        session::tests(),
        endings::tests(),
        input::tests(),
        output::tests(),
        memory::tests(),
        power::tests(),
        virtio::tests(),
        host::tests(),
    ];
    let prepare = || Assets::here().prepare_all().map_err(|error| error.to_string());
    harness::run(tests.into_iter().flatten().collect(), Needs::Linux, prepare)
}
