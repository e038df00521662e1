//! The disk beside QEMU's tools, qemu-img and qemu-io: what one of them writes the other reads, and neither writes what the
//! other has open.

mod devices;
mod dirty;
#[path = "../block/disk.rs"]
// Not all of what drives a disk is needed here.
#[allow(dead_code)]
mod disk;
mod formats;
mod images;
mod locks;
mod mounts;
mod tables;
mod tools;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let tests = [
        locks::tests(),
        images::tests(),
        dirty::tests(),
        tables::tests(),
        formats::tests(),
        devices::tests(),
        mounts::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut arguments = Arguments::from_args();
    // One at a time: a child has a copy of every descriptor until it executes its program, and so keeps the locks of disks that
    // other tests close meanwhile.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, tests).exit_code()
}
