//! The disk and QEMU's tools, qemu-img and qemu-io: each reads what the other wrote, and neither writes what
//! the other has open.

mod devices;
mod dirty;
#[path = "../block/disk.rs"]
// Not all of the disk's test code is used here.
#[allow(dead_code)]
mod disk;
mod faults;
mod formats;
mod images;
mod locks;
mod mounts;
mod power;
mod resize;
mod tables;
mod tools;
mod trace;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(code) = power::run_child().or_else(faults::run_child) {
        return code;
    }
    let tests = [
        locks::tests(),
        images::tests(),
        dirty::tests(),
        power::tests(),
        faults::tests(),
        tables::tests(),
        formats::tests(),
        devices::tests(),
        resize::tests(),
        mounts::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut arguments = Arguments::from_args();
    // One test at a time: until a child executes its program, it has copies of all descriptors, and so keeps
    // locks of disks that other tests close meanwhile.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, tests).exit_code()
}
