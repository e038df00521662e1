//! Examples that are monitors of their own, with a whole Linux: one without vmm-machine, and one with devices of its own.

use std::fs;

use driver::{DEADLINE, Launch, example};
use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::initrd::{CMDLINE, initrd_with};
use crate::linux::{ANY, ENDED, Image, image_path, initrd_path};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        example_linux_shell_runs_what_is_typed_and_restores_the_terminal,
        example_thermometer_and_dice_are_seen_by_linux,
    ]
}

/// A stock kernel as it is packaged, which unpacks itself, finds no ACPI, and resets by the keyboard controller.
fn example_linux_shell_runs_what_is_typed_and_restores_the_terminal() {
    let files = [image_path((KernelKind::Cloud61, Image::BzImage)), initrd_path()];
    let mut shell = Shell::boot(Launch::new(&example("linux_shell"), files).on_terminal()).mute();
    assert_eq!(shell.up.cpus, 1);
    assert_ne!(shell.monitor.termios(), shell.monitor.termios_before());
    assert_eq!(shell.run("echo $((6 * 7)); uname -m"), "42\nx86_64\n");
    shell.monitor.send(b"reboot -f\n");
    shell.monitor.expect("the guest has ended: Asked(Reset)", DEADLINE);
    shell.monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(shell.monitor.termios(), shell.monitor.termios_before());
}

/// What docs/adding-a-device.md promises of devices outside the workspace.
fn example_thermometer_and_dice_are_seen_by_linux() {
    let initrd = initrd_with(&["virtio_pci", "virtio_rng"]);
    let config = NamedTempFile::new().expect("a temporary file");
    let boot = json!({"kernel": image_path(ANY), "initrd": initrd.path(), "cmdline": CMDLINE});
    let devices = json!([{"type": "thermometer", "degrees": 21}, {"type": "dice", "face": 6}]);
    let text = json!({"boot": boot, "memory": {"size": "256M"}, "devices": devices}).to_string();
    fs::write(config.path(), text).expect("room for a config");
    let mut shell = Shell::boot(Launch::new(&example("thermometer"), [config.path()]).on_terminal()).mute();
    // What it reads there is for a test without Linux: this kernel has no /dev/port.
    let ports = shell.run("grep TEMP0001 /proc/ioports");
    assert_eq!(ports.trim(), "0090-0091 : TEMP0001:00");
    assert_eq!(shell.run("sh /modules/load"), "");
    let thrown = shell.run("head -c 4 /dev/hwrng | od -An -tu1");
    assert_eq!(thrown.split_whitespace().collect::<Vec<_>>(), ["6"; 4]);
    shell.reboot();
}
