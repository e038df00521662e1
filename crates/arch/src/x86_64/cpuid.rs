//! What the processor says of itself: KVM's supported CPUID, made true for one vCPU of this machine.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1 EBX bits 15:8: CLFLUSH line of 8 * 8 = 64 bytes.
const CLFLUSH_64_BYTES: u32 = 8 << 8;
/// Leaf 1 ECX bit 24: the local APIC's timer has a TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX bit 31: runs under a hypervisor. Linux looks for KVM's leaves only with it.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX bit 28: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX bit 1: AMD's leaf 1 count is cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Extended topology levels, in ECX bits 15:8 of leaves 0xb and 0x1f.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// One vCPU's place: all vCPUs are cores of one package, a thread each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the vCPU from 0, which is its APIC id.
    pub index: u32,
    /// Number of vCPUs, at least 1.
    pub count: u32,
}

impl Place {
    /// Bits of an APIC id that number the cores.
    fn core_bits(self) -> u32 {
        self.count.next_power_of_two().trailing_zeros()
    }
}

/// What of the host goes into the policy and isn't in KVM's supported CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// KVM_CAP_TSC_DEADLINE_TIMER: KVM emulates the mode, but never reports it.
    pub tsc_deadline: bool,
}

/// The CPUID of the vCPU at `place`, from what KVM supports (KVM api.rst, KVM_GET_SUPPORTED_CPUID).
///
/// Leaves 1, 4, 0xb, 0x1f, 0x8000_0001, 0x8000_0008 and 0x8000_001e describe the topology; KVM leaves the
/// host's values in some of them. KVM's own leaves at 0x4000_0000 stay as they are.
pub fn policy(supported: &[kvm_cpuid_entry2], place: Place, host: Host) -> Vec<kvm_cpuid_entry2> {
    let topology_leaves = [0xb, 0x1f];
    let mut entries: Vec<_> =
        supported.iter().filter(|e| !topology_leaves.contains(&e.function)).copied().collect();
    for entry in &mut entries {
        adjust(entry, place, host);
    }
    for leaf in topology_leaves {
        if supported.iter().any(|e| e.function == leaf) {
            entries.extend(extended_topology(leaf, place));
        }
    }
    entries
}

fn adjust(entry: &mut kvm_cpuid_entry2, place: Place, host: Host) {
    let Place { index, count } = place;
    let multiple = count > 1;
    match entry.function {
        1 => {
            // The count and the id have 8 bits here; larger machines are told of in leaf 0xb.
            entry.ebx = (entry.ebx & 0xff)
                | CLFLUSH_64_BYTES
                | (1 << place.core_bits()).min(0xff) << 16
                | (index & 0xff) << 24;
            entry.ecx |= HYPERVISOR;
            set(&mut entry.ecx, TSC_DEADLINE, host.tsc_deadline);
            set(&mut entry.edx, HTT, multiple);
        }
        // Deterministic cache parameters, where EAX bits 4:0 name a cache: bits 25:14 say how many logical
        // processors share it, less 1, and bits 31:26 how many cores the package has, less 1.
        4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { count } else { 1 };
            entry.eax &= 0x3fff;
            entry.eax |= (sharing - 1).min(0xfff) << 14 | ((1 << place.core_bits()) - 1).min(0x3f) << 26;
        }
        0x8000_0001 if !multiple => entry.ecx &= !CMP_LEGACY,
        // ECX bits 7:0: cores less 1; bits 15:12: bits of the APIC id that number them.
        0x8000_0008 => entry.ecx = (count - 1).min(0xff) | place.core_bits() << 12,
        // AMD: EAX the APIC id, EBX the core's number with one thread per core, ECX one node.
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

fn set(register: &mut u32, bits: u32, on: bool) {
    *register = if on { *register | bits } else { *register & !bits };
}

/// Leaf 0xb or 0x1f: a thread level of one thread, a core level of all vCPUs, an end.
fn extended_topology(leaf: u32, place: Place) -> [kvm_cpuid_entry2; 3] {
    let level = |index, shift, processors, kind| kvm_cpuid_entry2 {
        function: leaf,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | kind,
        edx: place.index,
        ..Default::default()
    };
    [level(0, 0, 1, LEVEL_THREAD), level(1, place.core_bits(), place.count, LEVEL_CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..Default::default() }
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    const HOST: Host = Host { tsc_deadline: true };

    #[test]
    fn leaf_1_tells_apic_id_hypervisor_and_deadline() {
        let got = policy(&[entry(1, 0)], Place { index: 2, count: 4 }, HOST);
        let leaf = find(&got, 1, 0);
        assert_eq!(leaf.ebx, 2 << 24 | 4 << 16 | 8 << 8);
        assert_eq!(leaf.ecx, 1 << 31 | 1 << 24);
        assert_eq!(leaf.edx, 1 << 28);
    }

    #[test]
    fn leaf_1_of_a_single_vcpu_has_no_htt_of_the_host() {
        let host_leaf = kvm_cpuid_entry2 { edx: HTT, ecx: TSC_DEADLINE, ..entry(1, 0) };
        let got = policy(&[host_leaf], Place { index: 0, count: 1 }, Host { tsc_deadline: false });
        assert_eq!(find(&got, 1, 0).edx, 0);
        assert_eq!(find(&got, 1, 0).ecx, HYPERVISOR);
    }

    #[test]
    fn leaf_1_counts_saturate_at_8_bits() {
        let got = policy(&[entry(1, 0)], Place { index: 299, count: 300 }, HOST);
        assert_eq!(find(&got, 1, 0).ebx >> 16, (299 & 0xff) << 8 | 0xff);
    }

    #[test]
    fn leaf_b_replaces_the_hosts_levels() {
        let supported = [entry(0xb, 0), kvm_cpuid_entry2 { ebx: 99, ..entry(0xb, 1) }];
        let got = policy(&supported, Place { index: 5, count: 6 }, HOST);
        assert_eq!(got.len(), 3);
        let core = find(&got, 0xb, 1);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (3, 6, 2 << 8 | 1, 5));
        assert_eq!(find(&got, 0xb, 0).ecx, 1 << 8);
    }

    #[test]
    fn leaf_b_absent_on_the_host_stays_absent() {
        assert_eq!(policy(&[entry(7, 0)], Place { index: 0, count: 1 }, HOST), [entry(7, 0)]);
    }

    #[test]
    fn leaf_4_l3_is_shared_by_all_and_l1_by_one() {
        let l1 = kvm_cpuid_entry2 { eax: 1 << 5 | 1 | 0xffff_c000, ..entry(4, 0) };
        let l3 = kvm_cpuid_entry2 { eax: 3 << 5 | 3, ..entry(4, 3) };
        let got = policy(&[l1, l3], Place { index: 0, count: 4 }, HOST);
        assert_eq!(find(&got, 4, 0).eax, 1 << 5 | 1 | 3 << 26);
        assert_eq!(find(&got, 4, 3).eax, 3 << 5 | 3 | 3 << 14 | 3 << 26);
    }

    #[test]
    fn amd_leaves_tell_the_count_and_the_id() {
        let supported = [entry(0x8000_0008, 0), entry(0x8000_001e, 0)];
        let got = policy(&supported, Place { index: 1, count: 2 }, HOST);
        assert_eq!(find(&got, 0x8000_0008, 0).ecx, 1 | 1 << 12);
        assert_eq!(find(&got, 0x8000_001e, 0).eax, 1);
    }
}
