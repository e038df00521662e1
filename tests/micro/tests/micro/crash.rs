//! Guests that crash: the monitor reports the cause and the registers, and exits with 5.

use driver::{DEADLINE, Monitor, Stdin};
use harness::trials;
use libtest_mimic::Trial;

use crate::common::{CRASHED, ENDED, boot};

/// Part of the message on a processor without VMX and SVM.
const SOFTWARE_KVM: &str = "neither VMX nor SVM, so its KVM is a software one";

/// Part of the message if KVM has reset the registers.
const RESET_BY_KVM: &str = "KVM has reset the registers";

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        crash_triple_fault_is_told_with_registers,
        crash_triple_fault_shows_where_it_was_unless_kvm_forgot,
        crash_jump_out_of_memory_is_told,
        crash_after_output_tells_it_last,
        crash_instruction_that_kvm_lacks_is_shown_and_explained,
    ]
}

/// Runs the guest that crashes in the way selected by this key.
fn die(key: &[u8]) -> Monitor {
    let mut monitor = boot("crash").stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(key);
    monitor.expect_code(CRASHED, DEADLINE);
    monitor
}

/// The value after a register's name in the report.
fn register(report: &str, name: &str) -> u64 {
    let (_, rest) = report.split_once(&format!("{name} ")).expect("the register is shown");
    u64::from_str_radix(&rest[..16], 16).expect("16 hex digits")
}

fn crash_triple_fault_is_told_with_registers() {
    let report = die(b"t").stderr();
    assert!(report.starts_with("error: the guest crashed: triple fault\nrip "), "{report}");
}

/// KVM on AMD processors resets the registers before they can be read.
fn crash_triple_fault_shows_where_it_was_unless_kvm_forgot() {
    let report = die(b"t").stderr();
    if report.contains(RESET_BY_KVM) {
        assert_eq!(register(&report, "\nrip"), 0xfff0, "{report}");
        return;
    }
    // The instruction pointer is at the guest's ud2; al has the last byte that it read.
    assert_eq!(register(&report, "\nrip") & !0xfff, 0x20_0000, "{report}");
    assert_eq!(register(&report, "\nrax") & 0xff, u64::from(b't'), "{report}");
    assert!(report.contains("\ncode 0f 0b "), "{report}");
}

fn crash_jump_out_of_memory_is_told() {
    let report = die(b"j").stderr();
    assert!(
        report.starts_with("error: the guest crashed: instruction pointer outside of memory\n"),
        "{report}"
    );
    assert_eq!(register(&report, "\nrip"), 0xd000_0000, "{report}");
    assert!(report.contains("\ncode unreadable: the instruction pointer is outside of memory"), "{report}");
    assert!(!report.contains(SOFTWARE_KVM), "no KVM could do that: {report}");
}

fn crash_after_output_tells_it_last() {
    let monitor = die(b"t");
    assert_eq!(monitor.stdout(), b"ready\n");
    assert_eq!(monitor.stderr().matches("error:").count(), 1);
}

/// A KVM that can run Linux supports all instructions.
fn crash_instruction_that_kvm_lacks_is_shown_and_explained() {
    if rig::can_run_linux().is_ok() {
        let mut monitor = boot("crash").stdin(Stdin::Pipe).start();
        monitor.send(b"i");
        monitor.expect("survived\n", DEADLINE);
        monitor.expect_code(ENDED, DEADLINE);
        return;
    }
    let report = die(b"i").stderr();
    let first = "error: the guest crashed: KVM can't emulate the instruction 48 0f c7 0c 25 ";
    assert!(report.starts_with(first), "{report}");
    assert!(report.contains(SOFTWARE_KVM), "{report}");
}
