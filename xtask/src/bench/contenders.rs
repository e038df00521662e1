//! The monitors that are compared, as commands.

use std::fs;
use std::path::{Path, PathBuf};

use rig::packages::find_program;

use super::spec::Contender;
use super::words;
use crate::failure::Failure;
use crate::workspace;

const QEMU: &str = "qemu-system-x86_64";
/// QEMU's microvm with a guest's serial line on standard output.
pub(super) const QEMU_COMMAND: &str = "qemu-system-x86_64 -M microvm -enable-kvm -cpu host -m {mem_mib} -smp {cpus} \
    -kernel {kernel} -initrd {initrd} -append {cmdline} \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot";
/// The arguments of our own monitor.
pub(super) const OUR_WORDS: &str = "--initrd {initrd} --cmdline {cmdline} --memory {mem_mib}M --cpus {cpus}";

/// What stands for what in a command: `{kernel}` for a path, and so on.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<(&'static str, String)>);

impl Places {
    /// Adds one; `name` without the braces.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The command of a monitor called `name`. Words are filled after splitting: a kernel's command line stays one word.
    pub(super) fn contender(&self, name: &str, command: &str) -> Result<Contender, Failure> {
        let words = words::split(command).ok_or_else(|| format!("--peer {name}: a quote is not closed"))?;
        if words.is_empty() {
            return Err(format!("--peer {name}: the command is empty").into());
        }
        Ok(Contender { name: name.to_owned(), argv: words.iter().map(|word| self.fill(word)).collect() })
    }

    /// What stands for `name`.
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    fn fill(&self, word: &str) -> String {
        self.0.iter().fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
    }
}

/// Those given, as `NAME=COMMAND`; or `qemu` without any, where it's installed.
pub(super) fn peers(
    given: &[String],
    qemu: (&str, &str),
    places: &Places,
) -> Result<Vec<Contender>, Failure> {
    if given.is_empty() {
        return has_qemu().then(|| places.contender(qemu.0, qemu.1)).into_iter().collect();
    }
    let peer = |peer: &String| {
        let (name, command) =
            peer.split_once('=').ok_or_else(|| format!("--peer {peer}: write it as NAME=COMMAND"))?;
        places.contender(name, command)
    };
    given.iter().map(peer).collect()
}

/// Whether QEMU is installed.
pub(super) fn has_qemu() -> bool {
    find_program(QEMU).is_some()
}

/// The monitor that is given, or else our own, brought up to date.
pub(super) fn find_monitor(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => {
            fs::canonicalize(path).map_err(|error| format!("can't open {}: {error}", path.display()).into())
        }
        None => Ok(workspace::build_monitor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contender_value_with_spaces_stays_one_word() {
        let places = Places::default().with("cmdline", "quiet ro");
        let contender = places.contender("x", "vmm --cmdline={cmdline} {other}").unwrap();
        assert_eq!(contender.argv, ["vmm", "--cmdline=quiet ro", "{other}"]);
    }

    #[test]
    fn peer_without_a_name_is_refused() {
        let error = peers(&["vmm".to_owned()], ("", ""), &Places::default()).unwrap_err().to_string();
        assert_eq!(error, "--peer vmm: write it as NAME=COMMAND");
    }
}
