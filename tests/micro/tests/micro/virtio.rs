//! The interrupt line of a virtio device: bare-metal drivers that listen on one line only. And devices that no driver uses.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use driver::{DEADLINE, Monitor, Stdin, guests};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::common::{BY_SIGTERM, ENDED, boot};

const HINT: &str = r#"set "transport": "mmio""#;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = trials![
        virtio_first_device_on_the_command_line_interrupts_by_the_first_8259,
        virtio_ninth_device_on_the_command_line_interrupts_by_the_second_8259,
        virtio_tenth_device_on_the_command_line_interrupts_by_the_io_apic,
        virtio_first_device_in_the_acpi_tables_interrupts_by_the_io_apic,
        virtio_devices_on_pci_that_no_driver_has_found_are_a_hint_at_the_end,
        virtio_devices_by_mmio_that_no_driver_has_found_are_no_hint,
        virtio_disk_by_threads_is_read_and_written,
    ];
    let long = trials![virtio_devices_on_pci_that_no_driver_has_found_are_a_hint_while_the_guest_runs];
    tests.extend(long.into_iter().map(|test| test.with_ignored_flag(true)));
    tests
}

/// Starts a machine with as many devices as a command line can announce, and a guest that waits for an interrupt from one of them.
fn start(guest: &str, announced: &str) -> (Monitor, NamedTempFile) {
    let image = guests::path(guest);
    let devices = [r#"{"type": "rng"}"#; 16].join(", ");
    let config = NamedTempFile::new().expect("a temporary file");
    let text = format!(
        r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "memory": {{"size": "4M"}},
            "announce_virtio": "{announced}", "devices": [{{"type": "debug-console"}}, {devices}]}}"#
    );
    std::fs::write(config.path(), text).expect("room for a config");
    (Monitor::command(["--config".as_ref(), config.path().as_os_str()]).start(), config)
}

#[track_caller]
fn assert_interrupts(guest: &str, announced: &str) {
    let (mut monitor, _config) = start(guest, announced);
    monitor.expect("interrupt\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn virtio_first_device_on_the_command_line_interrupts_by_the_first_8259() {
    assert_interrupts("virtio-irq-5", "cmdline");
}

fn virtio_ninth_device_on_the_command_line_interrupts_by_the_second_8259() {
    assert_interrupts("virtio-irq-9", "cmdline");
}

fn virtio_tenth_device_on_the_command_line_interrupts_by_the_io_apic() {
    assert_interrupts("virtio-irq-16", "cmdline");
}

fn virtio_first_device_in_the_acpi_tables_interrupts_by_the_io_apic() {
    assert_interrupts("virtio-irq-16-acpi", "acpi");
}

/// A machine whose guest starts and finds no device.
fn start_without_a_driver(more: &str) -> (Monitor, NamedTempFile) {
    let config = NamedTempFile::new().expect("a temporary file");
    let text = format!(r#"{{{more} "devices": [{{"type": "rng"}}]}}"#);
    std::fs::write(config.path(), text).expect("room for a config");
    let mut monitor = boot("halt").args(["--config".as_ref(), config.path().as_os_str()]).start();
    monitor.expect("ready\n", DEADLINE);
    (monitor, config)
}

fn end(monitor: &mut Monitor) -> String {
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    monitor.stderr()
}

/// The log of a machine whose guest starts, finds no device and is ended.
fn log_without_a_driver(more: &str) -> String {
    let (mut monitor, _config) = start_without_a_driver(more);
    end(&mut monitor)
}

fn virtio_devices_on_pci_that_no_driver_has_found_are_a_hint_at_the_end() {
    let log = log_without_a_driver("");
    assert!(log.contains(HINT) && log.lines().count() == 1, "{log}");
}

fn virtio_devices_by_mmio_that_no_driver_has_found_are_no_hint() {
    assert_eq!(log_without_a_driver(r#""transport": "mmio","#), "");
}

/// As on a host without io_uring. The guest reads or writes sectors 0 and 0x2000, and writes zeros.
fn virtio_disk_by_threads_is_read_and_written() {
    let disk = NamedTempFile::new().expect("a temporary file");
    let sectors = [0, 0x2000 * 512];
    let fill = |start| disk.as_file().write_all_at(&[7; 1024], start).expect("room for a disk");
    sectors.into_iter().for_each(fill);
    read_or_write("disk-read", &disk);
    let byte = |at| {
        let mut byte = [0];
        disk.as_file().read_exact_at(&mut byte, at).expect("a disk that isn't shorter");
        byte[0]
    };
    assert_eq!(sectors.map(|start| (byte(start), byte(start + 512))), [(7, 7); 2]);
    read_or_write("disk-write", &disk);
    assert_eq!(sectors.map(|start| (byte(start), byte(start + 512))), [(0, 7); 2]);
}

/// Runs a guest that makes two requests.
fn read_or_write(guest: &str, disk: &NamedTempFile) {
    let (image, path) = (guests::path(guest), disk.path());
    let config = NamedTempFile::new().expect("a temporary file");
    let text = format!(
        r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "irqchip": true,
            "devices": [{{"type": "block", "path": {path:?}, "io": "threads"}}]}}"#
    );
    std::fs::write(config.path(), text).expect("room for a config");
    let arguments = ["--config".as_ref(), config.path().as_os_str()];
    let mut monitor = Monitor::command(arguments).stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"12");
    monitor.expect("12", DEADLINE);
    assert_eq!(end(&mut monitor), "");
}

/// Once: the end doesn't repeat it.
fn virtio_devices_on_pci_that_no_driver_has_found_are_a_hint_while_the_guest_runs() {
    let (mut monitor, _config) = start_without_a_driver("");
    monitor.expect_stderr(HINT, Duration::from_secs(150));
    let log = end(&mut monitor);
    assert_eq!(log.matches(HINT).count(), 1, "{log}");
}
