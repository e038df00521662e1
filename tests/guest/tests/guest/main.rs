#![forbid(unsafe_code)]

//! Linux in the real monitor: on the host if its KVM runs Linux, otherwise in the rig, which is booted once for all tests.
//!
//! A boot takes seconds, so a test makes several related checks with one boot.

mod bare;
mod boots;
mod clock;
mod commands;
mod console;
mod endings;
mod example;
mod fio;
mod golden;
mod host;
mod initrd;
mod input;
mod landlock;
mod linux;
mod memory;
mod moments;
mod net;
mod no_acpi;
mod output;
mod paste;
mod pausing;
mod pci;
mod power;
mod rootfs;
mod saved;
mod session;
mod settings;
mod shell;
mod smp;
mod snapshot;
mod usernet;
mod vhost;
mod virtio;
mod vsock;

use std::process::ExitCode;

use harness::Needs;
use libtest_mimic::{Arguments, Trial};
use rig::Assets;

fn tests() -> Vec<Trial> {
    let tests = [
        boots::tests(),
        session::tests(),
        endings::tests(),
        example::tests(),
        input::tests(),
        output::tests(),
        memory::tests(),
        pausing::tests(),
        snapshot::tests(),
        moments::tests(),
        commands::tests(),
        power::tests(),
        virtio::tests(),
        pci::tests(),
        net::tests(),
        usernet::tests(),
        vsock::tests(),
        vhost::tests(),
        console::tests(),
        rootfs::tests(),
        fio::tests(),
        golden::tests(),
        smp::tests(),
        no_acpi::tests(),
        clock::tests(),
        host::tests(),
        bare::tests(),
    ];
    tests.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let prepare = || {
        driver::build_examples();
        let prepared = Assets::here()
            .prepare_all()
            .and_then(|()| rootfs::prepare())
            .and_then(|()| net::prepare())
            .and_then(|()| usernet::prepare())
            .and_then(|()| pci::prepare())
            .and_then(|()| no_acpi::prepare(&Arguments::from_args()))
            .and_then(|()| bare::prepare());
        prepared.map_err(|error| error.to_string())
    };
    let tests = [tests(), landlock::tests(), settings::as_user(tests()), settings::with_newest_libc(tests())];
    harness::run(tests.into_iter().flatten().collect(), Needs::Linux, prepare)
}
