//! ACPI: multiple processors, power off, reset, and the power button.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use driver::{DEADLINE, Launch};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rig::KernelKind;
use tempfile::{NamedTempFile, TempDir};

use crate::initrd::{initrd_with, shell};
use crate::linux::{ANY, BOOT_DEADLINE, BY_SIGTERM, CRASHED, ENDED, Image, InitUp, boot};
use crate::shell::Shell;

/// Without `reboot=`: the ACPI tables describe how to reset.
const CMDLINE: &str = crate::initrd::CMDLINE;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        power_off_of_each_kernel_ends_the_monitor,
        power_off_with_four_processors_ends_the_monitor,
        power_reset_by_acpi_ends_the_monitor,
        power_four_processors_run_and_take_their_interrupts,
        power_reset_with_restart_boots_again_in_the_same_process,
        power_button_followed_by_a_reset_ends_the_monitor_in_spite_of_restart,
        power_panic_that_is_told_by_pvpanic_is_a_crash,
        power_button_by_sigterm_shuts_a_listening_guest_down,
        power_button_that_nobody_obeys_is_followed_by_a_second_sigterm,
        power_button_that_nobody_obeys_is_followed_by_the_deadline,
    ]
}

/// Asserts that a guest that powers off as soon as it is up ends the monitor with exit code 0.
fn assert_powers_off(launch: Launch, cpus: u64) {
    let mut monitor = launch.start();
    assert_eq!(InitUp::expect(&mut monitor).cpus, cpus);
    monitor.expect("reboot: Power down\r\n", BOOT_DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn power_off_of_each_kernel_ends_the_monitor() {
    for kind in [KernelKind::Cloud61, KernelKind::Cloud612, KernelKind::Generic61] {
        assert_powers_off(boot((kind, Image::Vmlinux), &format!("{CMDLINE} POWEROFF")), 1);
    }
}

fn power_off_with_four_processors_ends_the_monitor() {
    assert_powers_off(boot(ANY, &format!("{CMDLINE} POWEROFF")).args(["--cpus", "4"]), 4);
}

fn power_reset_by_acpi_ends_the_monitor() {
    let mut monitor = boot(ANY, &format!("{CMDLINE} QUIT")).start();
    monitor.expect("reboot: Restarting system\r\n", BOOT_DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn power_four_processors_run_and_take_their_interrupts() {
    let mut shell = Shell::boot(boot(ANY, CMDLINE).args(["--cpus", "4"]).on_terminal()).mute();
    assert_eq!(shell.run("cat /sys/devices/system/cpu/online"), "0-3\n");
    // Each processor has its own load, which prints its result.
    let work = "for cpu in 0 1 2 3; do taskset -c $cpu sh -c 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo $i' & done; wait";
    let done = shell.run_within(work, BOOT_DEADLINE);
    assert_eq!(done.matches("1000\n").count(), 4, "{done}");
    // Counts of local timer interrupts, one per processor.
    let timers = shell.run("grep LOC: /proc/interrupts");
    let counts: Vec<u64> = timers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 4 && counts.iter().all(|count| *count > 0), "{timers}");
    // The monitor's threads on the host.
    let threads = shell.monitor.thread_names();
    let vcpus = threads.iter().filter(|name| name.starts_with("vcpu")).count();
    assert_eq!(vcpus, 4, "{threads:?}");
    shell.reboot();
}

/// A config with which a reset restarts the machine.
fn restarting() -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), r#"{"on_reboot": "restart"}"#).expect("room for a config");
    file
}

fn power_reset_with_restart_boots_again_in_the_same_process() {
    let config = restarting();
    let launch = boot(ANY, &format!("{CMDLINE} QUIT"));
    let mut monitor = launch.args(["--config".as_ref(), config.path().as_os_str()]).start();
    InitUp::expect(&mut monitor);
    monitor.expect("reboot: Restarting system\r\n", BOOT_DEADLINE);
    // The uptime starts again, and nothing is left in memory.
    InitUp::expect(&mut monitor);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// Boots a guest to its prompt and loads the drivers for the power button and for input events.
fn listening(args: &[&str]) -> Shell {
    let initrd = initrd_with(&["button", "evdev"]);
    let mut shell = shell(initrd.path(), args);
    let loaded = shell.run("for module in button evdev; do insmod /modules/$module.ko; done; ls /dev/input");
    assert!(loaded.contains("event0\n"), "{loaded}");
    shell
}

fn power_panic_that_is_told_by_pvpanic_is_a_crash() {
    let initrd = initrd_with(&["pvpanic", "pvpanic_mmio"]);
    let dir = TempDir::new().expect("a temporary directory");
    let control = dir.path().join("vm.sock");
    let mut shell = shell(initrd.path(), &["--control", control.to_str().expect("UTF-8")]);
    let client = UnixStream::connect(&control).expect("a control socket");
    { &client }.write_all(b"{\"id\": 1, \"command\": \"events\"}\n").expect("it is connected");
    assert_eq!(shell.run("insmod /modules/pvpanic.ko; insmod /modules/pvpanic_mmio.ko; echo $?"), "0\n");
    shell.monitor.send(b"echo c >/proc/sysrq-trigger\n");
    shell.monitor.expect("Kernel panic - not syncing: sysrq triggered crash\r\n", DEADLINE);
    shell.monitor.expect_code(CRASHED, DEADLINE);
    assert_eq!(shell.monitor.stderr(), "error: the guest's kernel panicked; its console has the reason\n");
    let mut told = String::new();
    { &client }.read_to_string(&mut told).expect("UTF-8");
    let lines = [
        r#"{"id":1,"result":"done"}"#,
        r#"{"event":"guest_panicked"}"#,
        r#"{"event":{"ended":{"exit_code":5,"reason":"the guest's kernel panicked; its console has the reason"}}}"#,
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), lines);
}

fn power_button_by_sigterm_shuts_a_listening_guest_down() {
    let mut shell = listening(&[]);
    shell.monitor.send(b"head -c 1 /dev/input/event0 >/dev/null; echo but\"\"ton; poweroff -f\n");
    shell.monitor.expect_quiet(Duration::from_millis(300));
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect("button\r\n", DEADLINE);
    shell.monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(shell.monitor.termios(), shell.monitor.termios_before());
}

/// SIGTERM ends the monitor even if the guest resets instead of powering off.
fn power_button_followed_by_a_reset_ends_the_monitor_in_spite_of_restart() {
    let config = restarting();
    let mut shell = listening(&["--config", config.path().to_str().expect("UTF-8")]);
    shell.monitor.send(b"head -c 1 /dev/input/event0 >/dev/null; reboot -f\n");
    shell.monitor.expect_quiet(Duration::from_millis(300));
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect("reboot: Restarting system\r\n", DEADLINE);
    shell.monitor.expect_code(ENDED, DEADLINE);
}

fn power_button_that_nobody_obeys_is_followed_by_a_second_sigterm() {
    let mut shell = listening(&[]);
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_quiet(Duration::from_millis(500));
    assert_eq!(shell.run("echo $((6*7))"), "42\n", "it goes on");
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn power_button_that_nobody_obeys_is_followed_by_the_deadline() {
    let mut shell = listening(&["--shutdown-timeout", "1s"]);
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_code(BY_SIGTERM, DEADLINE);
}
