//! Each boot protocol passes the command line and the initrd to the kernel.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use micro_tests::fnv1a;

use crate::common::{ENDED, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        boot_pvh_passes_command_line_and_initrd,
        boot_linux64_passes_command_line_and_initrd,
        boot_pvh_of_a_32_bit_kernel_passes_command_line_and_initrd,
        boot_pvh_without_initrd_passes_none,
        boot_linux64_without_initrd_passes_none,
        boot_longest_command_line_arrives,
    ]
}

/// The guest's report about its command line and its initrd.
fn report(cmdline: &str, initrd: &[u8]) -> String {
    format!("cmdline {cmdline}\ninitrd {:08x} hash {:08x}\n", initrd.len(), fnv1a(initrd))
}

/// Asserts that the guest, entered by `protocol`, finds `cmdline` and `initrd`.
fn assert_passed(protocol: &str, cmdline: &str, initrd: &[u8]) {
    assert_passed_to("params", protocol, cmdline, initrd);
}

/// As [`assert_passed`], with this guest.
fn assert_passed_to(guest: &str, protocol: &str, cmdline: &str, initrd: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), initrd).unwrap();
    let mut launch = boot(guest).args(["--protocol", protocol, "--cmdline", cmdline]);
    if !initrd.is_empty() {
        launch = launch.args(["--initrd".as_ref(), file.path().as_os_str()]);
    }
    let mut monitor: Monitor = launch.start();
    monitor.expect_code(ENDED, DEADLINE);
    let said = String::from_utf8(monitor.stdout()).unwrap();
    assert_eq!(said, format!("{protocol}\n{}", report(cmdline, initrd)));
}

/// An initrd of odd length, so that the last page is partly filled.
fn initrd() -> Vec<u8> {
    (0..100_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn boot_pvh_passes_command_line_and_initrd() {
    assert_passed("pvh", "console=ttyS0 a=\"b c\"", &initrd());
}

fn boot_linux64_passes_command_line_and_initrd() {
    assert_passed("linux64", "console=ttyS0 a=\"b c\"", &initrd());
}

/// An ELF32 with a PVH note, as Xen can be built; no protocol is specified.
fn boot_pvh_of_a_32_bit_kernel_passes_command_line_and_initrd() {
    assert_passed_to("params32", "pvh", "console=ttyS0", &initrd());
    let mut monitor = boot("params32").start();
    monitor.expect("pvh", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn boot_pvh_without_initrd_passes_none() {
    assert_passed("pvh", "", &[]);
}

fn boot_linux64_without_initrd_passes_none() {
    assert_passed("linux64", "", &[]);
}

fn boot_longest_command_line_arrives() {
    assert_passed("linux64", &"x".repeat(2047), &[]);
}
