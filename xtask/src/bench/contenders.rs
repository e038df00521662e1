//! The commands of the monitors that are compared.

use std::fs;
use std::path::{Path, PathBuf};

use rig::packages::find_program;

use super::spec::Contender;
use super::words;
use crate::failure::Failure;
use crate::workspace;

const QEMU: &str = "qemu-system-x86_64";
/// QEMU's microvm with the guest's serial console on standard output.
pub(super) const QEMU_COMMAND: &str = "qemu-system-x86_64 -M microvm -enable-kvm -cpu host -m {mem_mib} -smp {cpus} \
    -kernel {kernel} -initrd {initrd} -append {cmdline} \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot";
/// vmm-bin's arguments besides the config and the kernel.
pub(super) const OUR_ARGUMENTS: &str =
    "--initrd {initrd} --cmdline {cmdline} --memory {mem_mib}M --cpus {cpus}";

/// Values of the placeholders in a command, such as `{kernel}`.
#[derive(Clone, Debug, Default)]
pub(super) struct Placeholders(Vec<(&'static str, String)>);

impl Placeholders {
    /// Adds a placeholder; `name` is without braces.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The contender `name` with this command. Placeholders are replaced after splitting into words, so that a kernel command line
    /// stays one word.
    ///
    /// # Errors
    /// The command is empty or has an unclosed quote.
    pub(super) fn contender(&self, name: &str, command: &str) -> Result<Contender, Failure> {
        let words = words::split(command).ok_or_else(|| format!("--peer {name}: a quote is not closed"))?;
        if words.is_empty() {
            return Err(format!("--peer {name}: the command is empty").into());
        }
        Ok(Contender { name: name.to_owned(), argv: words.iter().map(|word| self.fill(word)).collect() })
    }

    /// The value of the placeholder `name`.
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    fn fill(&self, word: &str) -> String {
        self.0.iter().fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
    }
}

/// The contenders in `given`, each as `NAME=COMMAND`. If there are none: `qemu`, a name and a command, if QEMU is installed.
pub(super) fn peers(
    given: &[String],
    qemu: (&str, &str),
    placeholders: &Placeholders,
) -> Result<Vec<Contender>, Failure> {
    if given.is_empty() {
        return has_qemu().then(|| placeholders.contender(qemu.0, qemu.1)).into_iter().collect();
    }
    let peer = |peer: &String| {
        let (name, command) =
            peer.split_once('=').ok_or_else(|| format!("--peer {peer}: write it as NAME=COMMAND"))?;
        placeholders.contender(name, command)
    };
    given.iter().map(peer).collect()
}

/// Whether QEMU is installed.
pub(super) fn has_qemu() -> bool {
    find_program(QEMU).is_some()
}

/// The absolute path of the given monitor, or of vmm-bin, which is built.
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
        let placeholders = Placeholders::default().with("cmdline", "quiet ro");
        let contender = placeholders.contender("x", "vmm --cmdline={cmdline} {other}").unwrap();
        assert_eq!(contender.argv, ["vmm", "--cmdline=quiet ro", "{other}"]);
    }

    #[test]
    fn peer_without_a_name_is_refused() {
        let error = peers(&["vmm".to_owned()], ("", ""), &Placeholders::default()).unwrap_err().to_string();
        assert_eq!(error, "--peer vmm: write it as NAME=COMMAND");
    }
}
