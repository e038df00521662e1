//! The leaves that describe the topology and which processors share a cache.
//!
//! On Intel, Linux reads leaf 0x1f or 0xb, and 4 for the caches. On AMD, it also reads 0xb and, if TOPOEXT is
//! set, 0x8000_001d and 0x8000_001e; on older ones 1 and 0x8000_0008. All of them are made to agree.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::leaves::{Place, Vendor, find, set};

/// Leaf 1 EDX bit 28: more than one logical processor in the package.
pub(super) const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX bit 1: AMD's leaf 1 count is cores, not threads.
pub(super) const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x8000_0001 ECX bit 22: AMD's leaves 0x8000_001d and 0x8000_001e exist.
pub(super) const TOPOEXT: u32 = 1 << 22;
/// Level types, in ECX bits 15:8 of leaves 0xb and 0x1f (Intel SDM volume 2, CPUID).
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;
/// Extended topology leaves, the older and its successor.
const EXTENDED: [u32; 2] = [0xb, 0x1f];
/// AMD's leaves: the last extended leaf, caches, topology, and the extended topology of Zen 4, which would
/// have to agree with 0xb.
const AMD_LAST: u32 = 0x8000_0000;
pub(super) const AMD_CACHES: u32 = 0x8000_001d;
pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
const AMD_EXTENDED: u32 = 0x8000_0026;

/// Adjusts every topology leaf to `place`.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, vendor: Vendor, place: Place) {
    let extended: Vec<u32> =
        EXTENDED.into_iter().filter(|leaf| entries.iter().any(|e| e.function == *leaf)).collect();
    entries.retain(|entry| !EXTENDED.contains(&entry.function) && entry.function != AMD_EXTENDED);
    if vendor == Vendor::Amd {
        add_amd_leaves(entries);
    }
    for entry in entries.iter_mut() {
        adjust(entry, vendor, place);
    }
    entries.extend(extended.into_iter().flat_map(|leaf| levels(leaf, place)));
}

/// Adds AMD's topology leaf, which identifies threads and cores. It only holds numbers and needs no host
/// support; KVM omits it if the host's processor lacks it.
fn add_amd_leaves(entries: &mut Vec<kvm_cpuid_entry2>) {
    let Some(features) = find(entries, 0x8000_0001) else { return };
    features.ecx |= TOPOEXT;
    let Some(last) = find(entries, AMD_LAST) else { return };
    last.eax = last.eax.max(AMD_TOPOLOGY);
    if find(entries, AMD_TOPOLOGY).is_none() {
        entries.push(kvm_cpuid_entry2 { function: AMD_TOPOLOGY, ..Default::default() });
    }
}

fn adjust(entry: &mut kvm_cpuid_entry2, vendor: Vendor, place: Place) {
    let topology = place.topology;
    let multiple = topology.per_socket() > 1;
    match entry.function {
        // The processor count and the APIC id have 8 bits here; leaf 0xb covers larger machines.
        1 => {
            entry.ebx &= 0xffff;
            entry.ebx |= topology.per_socket().min(0xff) << 16 | (place.apic_id() & 0xff) << 24;
            set(&mut entry.edx, HTT, multiple);
        }
        // Deterministic cache parameters: EAX bits 31:26 are the number of core ids in a socket, less 1.
        4 if is_cache(entry) => {
            entry.eax &= 0x3fff;
            entry.eax |= sharing(entry, place) << 14 | ((1 << topology.core_bits()) - 1).min(0x3f) << 26;
        }
        0x8000_0001 if vendor == Vendor::Amd => set(&mut entry.ecx, CMP_LEGACY, multiple),
        // ECX bits 7:0: processors per socket, less 1; bits 15:12: number of APIC id bits for them.
        0x8000_0008 if vendor == Vendor::Amd => {
            entry.ecx = (topology.per_socket() - 1).min(0xff) | topology.socket_shift().min(0xf) << 12;
        }
        AMD_CACHES if is_cache(entry) => {
            entry.eax &= 0x3fff;
            entry.eax |= sharing(entry, place) << 14;
        }
        // EAX: APIC id. EBX bits 15:8: threads per core, less 1; bits 7:0: core id in the socket. ECX bits
        // 7:0: node id, which is the socket; bits 10:8: nodes per socket, less 1.
        AMD_TOPOLOGY => {
            let core = place.index % topology.per_socket() / topology.per_core();
            entry.eax = place.apic_id();
            entry.ebx = (topology.per_core() - 1).min(0xff) << 8 | (core & 0xff);
            entry.ecx = (place.index / topology.per_socket()) & 0xff;
        }
        _ => {}
    }
}

/// Whether an entry of leaf 4 or 0x8000_001d describes a cache (type in EAX bits 4:0) rather than ends the
/// list.
fn is_cache(entry: &kvm_cpuid_entry2) -> bool {
    entry.eax & 0x1f != 0
}

/// EAX bits 25:14: number of APIC ids that share the cache, less 1. L3 is shared by a socket, the others by a
/// core.
fn sharing(entry: &kvm_cpuid_entry2, place: Place) -> u32 {
    let level = entry.eax >> 5 & 7;
    let bits = if level >= 3 { place.topology.socket_shift() } else { place.topology.thread_bits() };
    ((1 << bits) - 1).min(0xfff)
}

/// The levels of leaf 0xb or 0x1f: threads of a core, processors of a socket, end of list.
fn levels(leaf: u32, place: Place) -> [kvm_cpuid_entry2; 3] {
    let level = |index, shift, processors, kind| kvm_cpuid_entry2 {
        function: leaf,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | kind,
        edx: place.apic_id(),
        ..Default::default()
    };
    let topology = place.topology;
    [
        level(0, topology.thread_bits(), topology.per_core(), LEVEL_THREAD),
        level(1, topology.socket_shift(), topology.per_socket(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::policy;
    use super::super::tests::{HOST, entry, get, place, vendor_leaf};
    use super::*;
    use crate::topology::Topology;

    fn grouped(threads: u16, cores: u16, sockets: u16) -> Topology {
        Topology::new(threads, cores, sockets).unwrap()
    }

    #[test]
    fn leaf_1_tells_the_sockets_count_and_the_id() {
        let got = policy(&[entry(1, 0)], place(7, grouped(2, 2, 2)), HOST);
        assert_eq!(get(&got, 1, 0).ebx, 7 << 24 | 4 << 16 | 8 << 8);
        assert_eq!(get(&got, 1, 0).edx, HTT);
    }

    #[test]
    fn leaf_1_of_a_single_processor_in_its_socket_has_no_htt_of_the_host() {
        let host_leaf = kvm_cpuid_entry2 { edx: HTT, ..entry(1, 0) };
        let got = policy(&[host_leaf], place(1, grouped(1, 1, 2)), HOST);
        assert_eq!(get(&got, 1, 0).edx, 0);
    }

    #[test]
    fn leaf_1_counts_saturate_at_8_bits() {
        let got = policy(&[entry(1, 0)], place(299, Topology::one_socket(300)), HOST);
        assert_eq!(get(&got, 1, 0).ebx >> 16, (299 & 0xff) << 8 | 0xff);
    }

    #[test]
    fn leaf_b_replaces_the_hosts_levels() {
        let supported = [entry(0xb, 0), kvm_cpuid_entry2 { ebx: 99, ..entry(0xb, 1) }];
        let got = policy(&supported, place(7, grouped(2, 3, 2)), HOST);
        assert_eq!(got.len(), 3);
        // The second thread of the first core of the second socket: 1 | 0 << 1 | 1 << 3.
        let thread = get(&got, 0xb, 0);
        assert_eq!((thread.eax, thread.ebx, thread.ecx, thread.edx), (1, 2, 1 << 8, 9));
        let core = get(&got, 0xb, 1);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (3, 6, 2 << 8 | 1, 9));
        assert_eq!(get(&got, 0xb, 2).ebx, 0);
    }

    #[test]
    fn leaf_b_tells_all_32_bits_of_the_id() {
        let got = policy(&[entry(0xb, 0)], place(299, Topology::one_socket(300)), HOST);
        assert_eq!(get(&got, 0xb, 1).edx, 299);
    }

    #[test]
    fn leaf_1f_is_there_where_the_host_has_it() {
        let got = policy(&[entry(0x1f, 0)], place(0, grouped(1, 4, 1)), HOST);
        assert_eq!((get(&got, 0x1f, 1).ebx, got.len()), (4, 3));
    }

    #[test]
    fn leaf_4_has_third_level_caches_in_sockets_and_the_others_in_cores() {
        let l1 = kvm_cpuid_entry2 { eax: 1 << 5 | 1 | 0xffff_c000, ..entry(4, 0) };
        let l3 = kvm_cpuid_entry2 { eax: 3 << 5 | 3, ..entry(4, 3) };
        let end = kvm_cpuid_entry2 { eax: 0, ..entry(4, 4) };
        // Three cores occupy four ids, two bits.
        let got = policy(&[l1, l3, end], place(0, grouped(2, 3, 1)), HOST);
        assert_eq!(get(&got, 4, 0).eax, 1 << 5 | 1 | 1 << 14 | 3 << 26);
        assert_eq!(get(&got, 4, 3).eax, 3 << 5 | 3 | 7 << 14 | 3 << 26);
        assert_eq!(get(&got, 4, 4).eax, 0);
    }

    fn amd() -> Vec<kvm_cpuid_entry2> {
        let last = kvm_cpuid_entry2 { eax: 0x8000_000a, ..entry(AMD_LAST, 0) };
        vec![vendor_leaf(b"AuthenticAMD", 0xd), last, entry(0x8000_0001, 0), entry(0x8000_0008, 0)]
    }

    #[test]
    fn amd_leaves_tell_counts_and_ids() {
        let got = policy(&amd(), place(7, grouped(2, 2, 2)), HOST);
        assert_eq!(get(&got, 0x8000_0008, 0).ecx, 3 | 2 << 12);
        let leaf = get(&got, AMD_TOPOLOGY, 0);
        // The second thread of the second core of the second socket.
        assert_eq!((leaf.eax, leaf.ebx, leaf.ecx), (7, 1 << 8 | 1, 1));
    }

    #[test]
    fn amd_without_topoext_gets_it() {
        let got = policy(&amd(), place(0, grouped(1, 2, 1)), HOST);
        assert_eq!(get(&got, AMD_LAST, 0).eax, AMD_TOPOLOGY);
        assert_eq!(get(&got, 0x8000_0001, 0).ecx, TOPOEXT | CMP_LEGACY);
        let single = policy(&amd(), place(0, grouped(1, 1, 1)), HOST);
        assert_eq!(get(&single, 0x8000_0001, 0).ecx, TOPOEXT);
    }

    #[test]
    fn amd_caches_are_shared_as_planned() {
        let l2 = kvm_cpuid_entry2 { eax: 2 << 5 | 3 | 7 << 14, ..entry(AMD_CACHES, 2) };
        let l3 = kvm_cpuid_entry2 { eax: 3 << 5 | 3 | 15 << 14, ..entry(AMD_CACHES, 3) };
        let got = policy(&[amd(), vec![l2, l3]].concat(), place(0, grouped(1, 4, 2)), HOST);
        assert_eq!(get(&got, AMD_CACHES, 2).eax, 2 << 5 | 3);
        assert_eq!(get(&got, AMD_CACHES, 3).eax, 3 << 5 | 3 | 3 << 14);
    }

    #[test]
    fn amd_extended_topology_of_the_host_is_gone() {
        let got = policy(&[amd(), vec![entry(AMD_EXTENDED, 0)]].concat(), place(0, grouped(1, 1, 1)), HOST);
        assert!(got.iter().all(|entry| entry.function != AMD_EXTENDED));
    }
}
