//! Reports what this host lacks to run virtual machines, and how to fix it.
//!
//! [`Host::probe`] inspects the host; [`Host::findings`] evaluates the result and makes no system calls.

use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::OnceLock;

use vmm_kvm::Kvm;

/// Available memory for a guest of the default size (256 MiB) and the host's own needs.
const ENOUGH_MEMORY_MIB: u64 = 512;

/// The explanation for users whose processor has no hardware virtualization, also shown after an emulation failure.
pub const SOFTWARE_KVM: &str = "this host's processor shows neither VMX nor SVM, so its KVM is a software one, which \
    runs small bare-metal guests but not a stock Linux; use a machine with hardware virtualization, or switch on \
    nested virtualization for this virtual machine";

/// The result of inspecting the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Whether VMX or SVM is among the processor's flags.
    pub hardware_virtualization: bool,
    /// The state of /dev/kvm.
    pub kvm: KvmState,
    /// MemAvailable of /proc/meminfo, in MiB.
    pub available_memory_mib: u64,
}

/// The state of /dev/kvm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmState {
    /// It doesn't exist.
    Missing,
    /// This user may not open it.
    NoPermission {
        /// The group that may open it, by name, or by number if it has none; `None` if no group may.
        group: Option<String>,
    },
    /// Opening it failed with another error.
    Broken(String),
    /// It works, possibly without some required capabilities.
    Works {
        /// The names of the missing KVM_CAP_*.
        missing: Vec<&'static str>,
        /// The maximum number of vCPUs of a machine.
        max_vcpus: usize,
    },
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub text: String,
    /// How to fix it; `None` if the check has passed.
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            None => write!(f, "ok    {}", self.text),
            Some(remedy) => write!(f, "FAIL  {}\n      {remedy}", self.text),
        }
    }
}

impl Host {
    /// Inspects this host.
    pub fn probe() -> Self {
        Self {
            hardware_virtualization: has_hardware_virtualization(),
            kvm: probe_kvm(),
            available_memory_mib: available_memory_mib().unwrap_or(0),
        }
    }

    /// The results of all checks.
    pub fn findings(&self) -> Vec<Finding> {
        vec![self.judge_processor(), self.judge_kvm(), self.judge_memory()]
    }

    fn judge_processor(&self) -> Finding {
        match (self.hardware_virtualization, &self.kvm) {
            (true, _) => passed("processor: has hardware virtualization (VMX or SVM)"),
            (false, KvmState::Missing) => failed(
                "processor: shows neither VMX nor SVM",
                "switch virtualization on in the firmware; inside a virtual machine, switch on nested virtualization",
            ),
            (false, _) => failed("processor: shows neither VMX nor SVM", SOFTWARE_KVM),
        }
    }

    fn judge_kvm(&self) -> Finding {
        match &self.kvm {
            KvmState::Missing if self.hardware_virtualization => {
                failed("/dev/kvm: missing", "load its module: sudo modprobe kvm_intel, or kvm_amd")
            }
            KvmState::Missing => failed("/dev/kvm: missing", "it comes with hardware virtualization"),
            KvmState::NoPermission { group: Some(group) } => failed(
                "/dev/kvm: no permission",
                &format!("join its group: sudo usermod -aG {group} $USER, then log in again"),
            ),
            KvmState::NoPermission { group: None } => failed(
                "/dev/kvm: no permission",
                "no group of users may open it; give it one and join that: sudo groupadd -f kvm && sudo chgrp kvm /dev/kvm && \
                 sudo chmod g+rw /dev/kvm && sudo usermod -aG kvm $USER, then log in again",
            ),
            KvmState::Broken(error) => {
                failed(&format!("/dev/kvm: {error}"), "see the kernel log: sudo dmesg")
            }
            KvmState::Works { missing, max_vcpus } if missing.is_empty() => {
                passed(&format!("/dev/kvm: works, up to {max_vcpus} vCPUs"))
            }
            KvmState::Works { missing, .. } => failed(
                &format!("/dev/kvm: lacks {}", missing.join(", ")),
                "use a newer kernel, or one with a full KVM",
            ),
        }
    }

    fn judge_memory(&self) -> Finding {
        let text = format!("memory: {} MiB available", self.available_memory_mib);
        if self.available_memory_mib < ENOUGH_MEMORY_MIB {
            return failed(&text, "free some, or give guests less than the default with memory.size");
        }
        passed(&text)
    }
}

fn passed(text: &str) -> Finding {
    Finding { text: text.to_owned(), remedy: None }
}

fn failed(text: &str, remedy: &str) -> Finding {
    Finding { text: text.to_owned(), remedy: Some(remedy.to_owned()) }
}

/// Whether the processor has VMX or SVM. Without them /dev/kvm, if it exists, is a software KVM. Found out at the first call: a
/// confined process can't read /proc.
pub fn has_hardware_virtualization() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
    })
}

fn probe_kvm() -> KvmState {
    match Kvm::open() {
        Ok(kvm) => KvmState::Works {
            missing: kvm.missing_capabilities().iter().map(|c| c.name).collect(),
            max_vcpus: kvm.max_vcpus(),
        },
        Err(vmm_kvm::Error::NoDevice) => KvmState::Missing,
        Err(vmm_kvm::Error::NoPermission) => KvmState::NoPermission { group: kvm_group() },
        Err(other) => KvmState::Broken(other.to_string()),
    }
}

/// The group that can read and write /dev/kvm, if there is one other than root's.
fn kvm_group() -> Option<String> {
    let metadata = fs::metadata("/dev/kvm").ok().filter(|m| m.file_type().is_char_device())?;
    let gid = kvm_group_of(metadata.mode(), metadata.gid())?;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, gid).map_or(gid.to_string(), str::to_owned))
}

/// The group that can read and write a node with this mode and group, if it isn't root's.
fn kvm_group_of(mode: u32, gid: u32) -> Option<u32> {
    (mode & 0o060 == 0o060 && gid != 0).then_some(gid)
}

/// The name of the group `gid` in the text of /etc/group (group(5)). getgrgid(3) loads shared libraries (NSS), which a
/// statically linked program can't rely on.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?;
        (number.parse() == Ok(gid)).then_some(name)
    })
}

fn available_memory_mib() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(kvm: KvmState) -> Host {
        Host { hardware_virtualization: true, kvm, available_memory_mib: 8192 }
    }

    fn remedies(host: &Host) -> Vec<String> {
        host.findings().into_iter().filter_map(|finding| finding.remedy).collect()
    }

    #[test]
    fn doctor_healthy_host_has_nothing_to_mend() {
        let kvm = KvmState::Works { missing: vec![], max_vcpus: 1024 };
        assert_eq!(remedies(&host(kvm)), Vec::<String>::new());
    }

    #[test]
    fn doctor_no_permission_names_the_group() {
        let kvm = KvmState::NoPermission { group: Some("kvm".into()) };
        assert_eq!(remedies(&host(kvm)), ["join its group: sudo usermod -aG kvm $USER, then log in again"]);
    }

    /// As for root:root with mode 0600. Joining root's group isn't suggested.
    #[test]
    fn doctor_no_permission_for_any_group_makes_one() {
        let remedy = "no group of users may open it; give it one and join that: sudo groupadd -f kvm && sudo chgrp kvm /dev/kvm && \
                      sudo chmod g+rw /dev/kvm && sudo usermod -aG kvm $USER, then log in again";
        assert_eq!(remedies(&host(KvmState::NoPermission { group: None })), [remedy]);
        assert_eq!(kvm_group_of(0o660, 0), None);
        assert_eq!(kvm_group_of(0o600, 106), None);
        assert_eq!(kvm_group_of(0o660, 106), Some(106));
    }

    #[test]
    fn doctor_group_is_found_by_its_number_and_bad_lines_are_skipped() {
        let groups = "root:x:0:\nbroken\n\nkvm:x:106:alice,bob\n";
        assert_eq!(group_name(groups, 106), Some("kvm"));
        assert_eq!(group_name(groups, 7), None);
    }

    #[test]
    fn doctor_software_kvm_is_explained() {
        let kvm = KvmState::Works { missing: vec![], max_vcpus: 1024 };
        let host = Host { hardware_virtualization: false, ..host(kvm) };
        assert_eq!(remedies(&host), [SOFTWARE_KVM]);
    }

    #[test]
    fn doctor_missing_kvm_on_a_capable_processor_is_a_missing_module() {
        let remedies = remedies(&host(KvmState::Missing));
        assert_eq!(remedies, ["load its module: sudo modprobe kvm_intel, or kvm_amd"]);
    }

    #[test]
    fn doctor_missing_capabilities_are_named() {
        let kvm = KvmState::Works { missing: vec!["KVM_CAP_IRQFD", "KVM_CAP_PIT2"], max_vcpus: 1 };
        assert_eq!(host(kvm).findings()[1].text, "/dev/kvm: lacks KVM_CAP_IRQFD, KVM_CAP_PIT2");
    }

    #[test]
    fn doctor_little_memory_is_reported() {
        let kvm = KvmState::Works { missing: vec![], max_vcpus: 1024 };
        let host = Host { available_memory_mib: 100, ..host(kvm) };
        assert_eq!(host.findings()[2].text, "memory: 100 MiB available");
        assert!(host.findings()[2].remedy.is_some());
    }
}
