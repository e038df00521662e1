//! Clock frequencies, so that guests needn't measure them.
//!
//! Linux takes the TSC frequency from kvm-clock and ignores these leaves (arch/x86/kernel/kvmclock.c). Others
//! use them: guests without kvm-clock, such as Linux with `no-kvmclock` on Intel, read leaf 0x15; the BSDs
//! and Windows read leaf 0x4000_0010.

use kvm_bindings::kvm_cpuid_entry2;

use super::leaves::{KVM_LEAVES, Vendor, find, replace};

/// TSC and core crystal clock leaf (Intel SDM volume 2, CPUID).
const CRYSTAL: u32 = 0x15;
/// Timing leaf that VMware defined for all hypervisors (Linux, arch/x86/kernel/cpu/vmware.c; FreeBSD,
/// sys/x86/x86/tsc.c).
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// Frequency of KVM's local APIC timers: one count per nanosecond (KVM api.rst,
/// KVM_CAP_X86_APIC_BUS_CYCLES_NS).
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Reports a TSC frequency of `khz`.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, vendor: Vendor, khz: u32) {
    // Processors whose last leaf, in leaf 0, is below 0x15 don't have it. AMD has none.
    if vendor == Vendor::Intel && find(entries, 0).is_some_and(|leaf| leaf.eax >= CRYSTAL) {
        // ECX is the crystal frequency in Hz, and the TSC runs at EBX / EAX times that. Linux takes the
        // crystal as the APIC timer's clock, so it must be KVM's APIC bus frequency.
        let crystal_hz = APIC_BUS_KHZ * 1000;
        replace(entries, leaf(CRYSTAL, APIC_BUS_KHZ, khz, crystal_hz));
    }
    if let Some(first) = find(entries, KVM_LEAVES) {
        // EAX is the last of these leaves; old KVMs report 0, which means 0x4000_0001.
        first.eax = first.eax.max(HYPERVISOR_TIMING);
        replace(entries, leaf(HYPERVISOR_TIMING, khz, APIC_BUS_KHZ, 0));
    }
}

fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, eax, ebx, ecx, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HOST, entry, get, place, vendor_leaf};
    use super::super::{Host, policy};
    use super::*;
    use crate::topology::Topology;

    const KHZ: u32 = 2_599_998;

    fn told(supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
        policy(supported, place(0, Topology::one_socket(1)), Host { tsc_khz: Some(KHZ), ..HOST })
    }

    #[test]
    fn hypervisor_timing_follows_kvms_leaves() {
        let got = told(&[kvm_cpuid_entry2 { eax: 0x4000_0001, ..entry(KVM_LEAVES, 0) }]);
        assert_eq!(get(&got, KVM_LEAVES, 0).eax, 0x4000_0010);
        let timing = get(&got, HYPERVISOR_TIMING, 0);
        assert_eq!((timing.eax, timing.ebx), (KHZ, 1_000_000));
    }

    #[test]
    fn hypervisor_timing_without_kvms_leaves_is_absent() {
        assert_eq!(told(&[entry(7, 0)]), [entry(7, 0)]);
    }

    /// Computed as in Linux's native_calibrate_tsc.
    #[test]
    fn crystal_of_intel_gives_the_tsc_and_the_apic_timer() {
        let got = told(&[vendor_leaf(b"GenuineIntel", 0x15)]);
        let leaf = get(&got, CRYSTAL, 0);
        let crystal_khz = u64::from(leaf.ecx / 1000);
        assert_eq!(crystal_khz, 1_000_000);
        assert_eq!(crystal_khz * u64::from(leaf.ebx) / u64::from(leaf.eax), u64::from(KHZ));
    }

    #[test]
    fn crystal_is_told_to_no_other_processor() {
        let crystals = |leaf| told(&[leaf]).iter().filter(|entry| entry.function == CRYSTAL).count();
        assert_eq!(crystals(vendor_leaf(b"GenuineIntel", 0x14)), 0);
        assert_eq!(crystals(vendor_leaf(b"AuthenticAMD", 0x20)), 0);
    }
}
