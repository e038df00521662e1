//! Capabilities of this host's /dev/kvm, as far as they can be determined.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;

/// Why this host's KVM can't run Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no /dev/kvm.
    NoKvm,
    /// /dev/kvm isn't accessible to this user.
    NoPermission,
    /// /dev/kvm can't be opened for another reason.
    Unusable(String),
    /// The CPU has neither VMX nor SVM, so KVM is emulated in software. Such a KVM runs payloads of a few
    /// instructions; a stock kernel uses some that aren't emulated.
    SoftwareKvm,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKvm => f.write_str("this host has no /dev/kvm"),
            Self::NoPermission => {
                f.write_str("/dev/kvm isn't accessible: join its group (usually kvm) and log in again")
            }
            Self::Unusable(why) => write!(f, "/dev/kvm can't be opened: {why}"),
            Self::SoftwareKvm => {
                f.write_str("the CPU has neither VMX nor SVM: this KVM runs bare-metal payloads, not Linux")
            }
        }
    }
}

/// Whether a monitor on this host can run a stock Linux guest; otherwise the reason.
pub fn can_run_linux() -> Result<(), Reason> {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Reason::NoKvm),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Reason::NoPermission),
        Err(error) => return Err(Reason::Unusable(error.to_string())),
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if has_virtualization(&cpuinfo) { Ok(()) } else { Err(Reason::SoftwareKvm) }
}

/// Whether the flags in /proc/cpuinfo list VMX (Intel) or SVM (AMD).
fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.flat_map(str::split_whitespace).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_svm_is_found() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu vme svm lm\n"));
    }

    #[test]
    fn virtualization_longer_word_does_not_count() {
        assert!(!has_virtualization("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n"));
    }
}
