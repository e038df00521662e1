//! An example of vmm-vcpu that is a monitor of its own, without vmm-machine, for a whole Linux.

use driver::{DEADLINE, Launch, example};
use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;

use crate::linux::{ENDED, Image, image_path, initrd_path};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![example_linux_shell_runs_what_is_typed_and_restores_the_terminal]
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
