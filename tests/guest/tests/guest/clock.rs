//! The guest's time of day, and the frequencies of its clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;

use crate::linux::{Image, boot};
use crate::shell::Shell;

/// Without "quiet", so that the kernel's log is at its usual level; little of it reaches the console.
const CMDLINE: &str = "console=ttyS0 panic=-1 loglevel=1";
/// Maximum difference between the guest's time and the host's in seconds: the real-time clock has a resolution of one second, and
/// reading it takes time in the rig.
const TOLERANCE: u64 = 5;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        clock_of_linux_6_1_is_right_settable_and_not_measured,
        clock_of_linux_6_12_is_right_settable_and_not_measured,
    ]
}

fn clock_of_linux_6_1_is_right_settable_and_not_measured() {
    check(KernelKind::Cloud61);
}

fn clock_of_linux_6_12_is_right_settable_and_not_measured() {
    check(KernelKind::Cloud612);
}

fn check(kernel: KernelKind) {
    let mut shell = Shell::boot(boot((kernel, Image::Vmlinux), CMDLINE).on_terminal()).mute();
    assert_time_is_the_hosts(&mut shell);
    assert_nothing_is_measured(&mut shell);
    assert_can_be_set(&mut shell);
    shell.reboot();
}

fn assert_time_is_the_hosts(shell: &mut Shell) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970").as_secs();
    let before = now();
    let guest: u64 = shell.run("date +%s").trim().parse().expect("seconds");
    let range = before - TOLERANCE..=now() + TOLERANCE;
    assert!(range.contains(&guest), "{guest} isn't in {range:?}");
}

/// Linux logs each of its measurements (arch/x86/kernel/tsc.c, arch/x86/kernel/apic/apic.c, init/calibrate.c).
fn assert_nothing_is_measured(shell: &mut Shell) {
    let log = shell.run("dmesg | grep -iE 'tsc|calibrat|timer'");
    let measurements =
        ["TSC calibration", "PIT calibration", "Refined TSC", "calibrating APIC timer", "lapic timer"];
    let measured: Vec<_> = measurements.into_iter().filter(|text| log.contains(text)).collect();
    assert_eq!(measured, [""; 0], "{log}");
    assert!(log.contains("tsc: Detected "), "{log}");
    assert!(log.contains("Calibrating delay loop (skipped) preset value"), "{log}");
    // Linux treats the frequency as exact. The local APIC's timer is derived from it and isn't measured either.
    assert_eq!(shell.run("grep -cw tsc_known_freq /proc/cpuinfo"), "1\n");
    let timer = shell.run("cat /sys/devices/system/clockevents/clockevent0/current_device");
    assert_eq!(timer, "lapic-deadline\n");
    let source = shell.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource");
    assert_eq!(source, "kvm-clock\n");
}

/// The real-time clock accepts a time from the guest, including the century, and continues from there.
fn assert_can_be_set(shell: &mut Shell) {
    let set = "date -us '2131-02-03 04:05:06' >/dev/null; hwclock -uw; date -us '2020-01-01 00:00:00' >/dev/null; \
               hwclock -us; date -u +%Y-%m-%dT%H:%M";
    assert_eq!(shell.run(set), "2131-02-03T04:05\n");
}
