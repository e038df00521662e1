//! qemu-img and qemu-io.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use libtest_mimic::{Completion, Failed, Trial};

/// A test that is ignored if QEMU's tools aren't available, or fails where tests are required.
pub(crate) fn trial(name: &'static str, test: impl FnOnce() + Send + 'static) -> Trial {
    trial_with(name, &[], test)
}

/// The same for a test that also needs these programs, whose packages have their names.
pub(crate) fn trial_with(
    name: &'static str,
    programs: &'static [&'static str],
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, || match install().and_then(|()| install_each(programs)) {
        Ok(()) => {
            test();
            Ok(Completion::Completed)
        }
        Err(why) if rig::guests_required() => Err(Failed::from(why)),
        Err(why) => Ok(Completion::ignored_with(why)),
    })
}

/// One test at a time: apt takes a lock.
fn install() -> Result<(), String> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let is_there = |name| rig::packages::find_program(name).is_some();
    let install = || match is_there("qemu-img") && is_there("qemu-io") {
        true => Ok(()),
        false => rig::packages::install(&["qemu-utils"]).map_err(|error| error.to_string()),
    };
    INSTALLED.get_or_init(install).clone()
}

fn install_each(programs: &[&str]) -> Result<(), String> {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|name| rig::packages::find_program(name).is_none()).collect();
    rig::packages::install(&missing).map_err(|error| error.to_string())
}

/// Runs qemu-io with `commands` on the image at `path`. Returns whether it succeeded, and its output.
pub(crate) fn qemu_io(options: &[&str], path: &Path, commands: &[&str]) -> (bool, String) {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    text(Command::new("qemu-io").args(options).args(commands).arg(path))
}

/// Runs qemu-img with these arguments, separated by spaces. Returns whether it succeeded, and its output.
pub(crate) fn qemu_img(arguments: &str) -> (bool, String) {
    text(Command::new("qemu-img").args(arguments.split_whitespace()))
}

fn text(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.success(), String::from_utf8(said).unwrap())
}

/// A qemu-io that has an image open until it is dropped.
pub(crate) struct Holder(Child);

impl Holder {
    pub(crate) fn open(options: &[&str], path: &Path) -> Self {
        let mut command = Command::new("qemu-io");
        command.args(options).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It executes commands once it has opened the image; without a terminal it doesn't prompt.
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut said = [0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut said).expect("it has opened the image");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It exits at the end of its input.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
