//! The guest's CPUID: KVM's supported CPUID, adjusted to one vCPU of this machine.

mod brand;
mod features;
mod leaves;
mod missing;
mod timing;
mod topology;

use kvm_bindings::kvm_cpuid_entry2;

pub use self::brand::Brand;
pub use self::features::{Baseline, FeaturePolicy, FeaturePolicyError, MissingFeatures};
pub use self::leaves::Place;
use self::leaves::{MSI_EXT_DEST_ID, Vendor, set};
pub use self::missing::{Missing, missing};

/// Leaf 1 EBX bits 15:8: CLFLUSH line of 8 * 8 = 64 bytes.
const CLFLUSH_64_BYTES: u32 = 8 << 8;
/// Leaf 1 ECX bit 24: the local APIC's timer has a TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX bit 31: running under a hypervisor. Linux looks for KVM's leaves only if it is set.
const HYPERVISOR: u32 = 1 << 31;
/// Feature leaf among KVM's own leaves (KVM cpuid.rst).
const KVM_FEATURES: u32 = 0x4000_0001;

/// Properties of the host that [`policy`] needs and KVM's supported CPUID lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// KVM_CAP_TSC_DEADLINE_TIMER. KVM emulates this mode but never reports it in CPUID.
    pub tsc_deadline: bool,
    /// KVM_GET_TSC_KHZ: the guest's TSC frequency; `None` if KVM doesn't know it.
    pub tsc_khz: Option<u32>,
    /// The processor's brand string; `None` keeps KVM's.
    pub brand: Option<Brand>,
}

/// The CPUID of the vCPU at `place`, derived from what KVM supports (KVM api.rst, KVM_GET_SUPPORTED_CPUID).
///
/// Leaves 1, 4, 0xb, 0x1f, 0x8000_0001, 0x8000_0008, 0x8000_001d and 0x8000_001e describe the machine's
/// topology; KVM leaves the host's values in some of them. Leaves 0x15 and 0x4000_0010 give the frequencies
/// of the TSC and the APIC timer, so that guests needn't measure them. Leaves 0x8000_0002 to 0x8000_0004 hold
/// the brand string. Of KVM's own features, one bit depends on the machine: extended destination ids, set if
/// there are APIC ids from 255 on.
pub fn policy(supported: &[kvm_cpuid_entry2], place: Place, host: Host) -> Vec<kvm_cpuid_entry2> {
    let vendor = Vendor::of(supported);
    let mut entries = supported.to_vec();
    for entry in &mut entries {
        match entry.function {
            1 => {
                entry.ebx = (entry.ebx & 0xff) | CLFLUSH_64_BYTES;
                entry.ecx |= HYPERVISOR;
                set(&mut entry.ecx, TSC_DEADLINE, host.tsc_deadline);
            }
            KVM_FEATURES => set(&mut entry.eax, MSI_EXT_DEST_ID, place.topology.needs_x2apic()),
            _ => {}
        }
    }
    topology::describe(&mut entries, vendor, place);
    if let Some(khz) = host.tsc_khz {
        timing::describe(&mut entries, vendor, khz);
    }
    if let Some(brand) = host.brand {
        brand::describe(&mut entries, brand);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// Shared by the tests of the leaves.
    pub(super) fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..Default::default() }
    }

    pub(super) fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    /// Leaf 0 with `last` as the last basic leaf.
    pub(super) fn vendor_leaf(name: &[u8; 12], last: u32) -> kvm_cpuid_entry2 {
        let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
        kvm_cpuid_entry2 { eax: last, ebx: word(0), edx: word(4), ecx: word(8), ..entry(0, 0) }
    }

    pub(super) const HOST: Host = Host { tsc_deadline: true, tsc_khz: None, brand: None };

    pub(super) fn place(index: u32, topology: Topology) -> Place {
        Place { index, topology }
    }

    #[test]
    fn leaf_1_tells_hypervisor_and_deadline() {
        let got = policy(&[entry(1, 0)], place(0, Topology::one_socket(1)), HOST);
        assert_eq!(get(&got, 1, 0).ecx, 1 << 31 | 1 << 24);
    }

    #[test]
    fn leaf_1_has_no_deadline_that_kvm_has_not() {
        let host_leaf = kvm_cpuid_entry2 { ecx: TSC_DEADLINE, ..entry(1, 0) };
        let host = Host { tsc_deadline: false, ..HOST };
        let got = policy(&[host_leaf], place(0, Topology::one_socket(1)), host);
        assert_eq!(get(&got, 1, 0).ecx, HYPERVISOR);
    }

    #[test]
    fn long_destinations_are_told_only_to_who_needs_them() {
        let told = |cores| {
            let got = policy(&[entry(KVM_FEATURES, 0)], place(0, Topology::one_socket(cores)), HOST);
            get(&got, KVM_FEATURES, 0).eax
        };
        assert_eq!((told(255), told(256)), (0, MSI_EXT_DEST_ID));
    }

    #[test]
    fn leaves_that_are_not_ours_stay() {
        assert_eq!(policy(&[entry(7, 0)], place(0, Topology::one_socket(1)), HOST), [entry(7, 0)]);
    }
}
