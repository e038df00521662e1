//! What the guest is told of the host's processor, besides what KVM reports.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use nix::sys::utsname::uname;
use vmm_arch::cpuid::Brand;
use vmm_kvm::Kvm;
use vmm_kvm::kvm_bindings::kvm_cpuid_entry2;
use vmm_snapshot::SavedHost;

/// The host's processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCpu {
    /// The "model name" of the first one.
    pub(super) brand: Option<Brand>,
}

impl HostCpu {
    /// Reads /proc/cpuinfo.
    pub(crate) fn read() -> Self {
        // The file can be long; reading stops at the first processor's name.
        let name = File::open("/proc/cpuinfo").ok().and_then(name_in);
        Self { brand: name.map(|name| Brand::new(&name)) }
    }
}

/// The host's processor and kernel, as a snapshot describes them. The frequency of the TSC isn't filled in.
pub(crate) fn describe_host(kvm: &Kvm) -> Result<SavedHost, vmm_kvm::Error> {
    let supported = kvm.supported_cpuid()?;
    let kernel = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    let leaf = |function| supported.iter().find(|entry| entry.function == function).copied();
    Ok(described(leaf(0).unwrap_or_default(), leaf(1).unwrap_or_default().eax, kernel))
}

/// Vendor and signature of a processor (Intel SDM volume 2, CPUID leaves 0 and 1).
fn described(vendor: kvm_cpuid_entry2, signature: u32, kernel: String) -> SavedHost {
    let bytes = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
    let field = |shift: u32, bits: u32| signature >> shift & ((1 << bits) - 1);
    let family = field(8, 4);
    SavedHost {
        vendor: String::from_utf8_lossy(&bytes).into_owned(),
        family: if family == 0xf { family + field(20, 8) } else { family },
        model: if matches!(family, 6 | 0xf) { field(16, 4) << 4 | field(4, 4) } else { field(4, 4) },
        stepping: field(0, 4),
        kernel,
        tsc_khz: 0,
    }
}

fn name_in(cpuinfo: impl Read) -> Option<String> {
    BufReader::new(cpuinfo).lines().map_while(Result::ok).find_map(|line| {
        let (key, name) = line.split_once(':')?;
        (key.trim() == "model name").then(|| name.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_first_processors() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: AMD EPYC: 7763 \n\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(name_in(cpuinfo.as_bytes()).as_deref(), Some("AMD EPYC: 7763"));
    }

    /// An Ice Lake and a Milan.
    #[test]
    fn processors_are_described_with_their_extended_numbers() {
        let [ebx, edx, ecx] = [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes);
        let vendor = kvm_cpuid_entry2 { ebx, ecx, edx, ..Default::default() };
        let found = described(vendor, 0x0006_06a6, "6.1.0".to_owned());
        assert_eq!(
            (found.vendor.as_str(), found.family, found.model, found.stepping),
            ("GenuineIntel", 6, 0x6a, 6)
        );
        let found = described(vendor, 0x00a0_0f11, "6.1.0".to_owned());
        assert_eq!((found.family, found.model, found.stepping, found.kernel.as_str()), (25, 1, 1, "6.1.0"));
    }

    #[test]
    fn name_that_there_is_not_is_none() {
        assert_eq!(name_in("processor\t: 0\nmodel\t: 1\n".as_bytes()), None);
    }
}
