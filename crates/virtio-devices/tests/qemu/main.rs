//! The disk beside QEMU's tools, qemu-img and qemu-io: what one of them writes the other reads, and neither writes what the
//! other has open.

#[path = "../block/disk.rs"]
// Not all of what drives a disk is needed here.
#[allow(dead_code)]
mod disk;
mod images;
mod locks;
mod tools;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let tests = [locks::tests(), images::tests()].into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}
