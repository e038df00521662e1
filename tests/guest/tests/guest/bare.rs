//! Debian's bootable programs other than Linux: memtest86+, Xen, and programs that need a BIOS.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use rig::Assets;
use tempfile::TempDir;

use crate::linux::{BAD_CONFIG, BOOT_DEADLINE};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        memtest_whose_last_paragraph_is_not_full_tests_memory,
        xen_by_multiboot_begins_and_finds_its_command_line,
        ipxe_and_memdisk_are_refused_for_want_of_a_bios,
    ]
}

const MEMTEST: &str = "memtest86+";
const XEN: &str = "xen-hypervisor-4.17-amd64";
const IPXE: &str = "ipxe";
const SYSLINUX: &str = "syslinux-common";

/// Fetches files that can't be fetched inside the rig.
pub(crate) fn prepare() -> Result<(), rig::Error> {
    [MEMTEST, XEN, IPXE, SYSLINUX].into_iter().try_for_each(|name| Assets::here().package(name).map(drop))
}

fn file(package: &str, path: &str) -> PathBuf {
    Assets::here().package(package).expect("it was fetched").join(path)
}

fn memtest_whose_last_paragraph_is_not_full_tests_memory() {
    let kernel = file(MEMTEST, "boot/memtest86+x64.bin");
    let flags = ["--memory", "64M", "--cmdline", "console=ttyS0,115200", "--kernel"].map(PathBuf::from);
    let mut monitor = Monitor::command(flags.into_iter().chain([kernel])).start();
    monitor.expect("Memtest86+", BOOT_DEADLINE);
}

/// Xen's entry code first looks for the EBDA and the end of conventional memory, and loops forever if it finds none.
fn xen_by_multiboot_begins_and_finds_its_command_line() {
    let directory = TempDir::new().expect("a temporary directory");
    let unpacked = Command::new("gzip")
        .arg("-dc")
        .arg(file(XEN, "boot/xen-4.17-amd64.gz"))
        .stderr(Stdio::inherit())
        .output()
        .expect("gzip runs");
    fs::write(directory.path().join("xen"), unpacked.stdout).expect("there is room");
    let config = r#"{"boot": {"flat": {"image": "xen"}, "cmdline": "com1=115200,8n1 console=com1 no-real-mode noreboot"},
                     "memory": {"size": "256M"}}"#;
    let path = directory.path().join("vm.json");
    fs::write(&path, config).expect("there is room");
    let mut monitor = Monitor::command([PathBuf::from("--config"), path]).start();
    monitor.expect("Xen version 4.17", BOOT_DEADLINE);
    // Xen skips the first word.
    monitor.expect("Command line: com1=115200,8n1 console=com1 no-real-mode noreboot", DEADLINE);
}

fn ipxe_and_memdisk_are_refused_for_want_of_a_bios() {
    for kernel in [file(IPXE, "boot/ipxe.lkrn"), file(SYSLINUX, "usr/lib/syslinux/memdisk")] {
        let mut monitor = Monitor::command([PathBuf::from("--check"), "--kernel".into(), kernel]).start();
        monitor.expect_code(BAD_CONFIG, DEADLINE);
        let said = monitor.stderr();
        assert!(said.contains("it needs a BIOS, and there is none here; boot the kernel"), "{said}");
    }
}
