//! Two different hosts: what KVM of Linux 6.1 supports on a third-generation AMD EPYC (Milan) and a
//! third-generation Intel Xeon (Ice Lake).
//!
//! The numbers are from real machines, taken from Firecracker's fingerprint files
//! (tests/data/cpu_template_helper/fingerprint_AMD_MILAN_6.1host.json and
//! fingerprint_INTEL_ICELAKE_6.1host.json), without leaves of zeros.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf, sub-leaf, EAX, EBX, ECX, EDX.
type Row = [u32; 6];

pub(super) fn amd_milan() -> Vec<kvm_cpuid_entry2> {
    entries(&AMD_MILAN)
}

pub(super) fn intel_icelake() -> Vec<kvm_cpuid_entry2> {
    entries(&INTEL_ICELAKE)
}

fn entries(rows: &[Row]) -> Vec<kvm_cpuid_entry2> {
    let has_index = |function| matches!(function, 4 | 7 | 0xb | 0xd | 0x8000_001d);
    let flags = |function| if has_index(function) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
    let entry = |&[function, index, eax, ebx, ecx, edx]: &Row| kvm_cpuid_entry2 {
        function,
        index,
        flags: flags(function),
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    rows.iter().map(entry).collect()
}

#[rustfmt::skip]
const AMD_MILAN: [Row; 24] = [
    [0x0, 0, 0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    [0x1, 0, 0x00a0_0f11, 0x0001_0800, 0xf7fa_3203, 0x078b_fbff],
    [0x6, 0, 0x4, 0, 0, 0],
    [0x7, 0, 0, 0x219c_05ab, 0x0040_060c, 0x8c00_0000],
    [0xb, 0, 0, 0x1, 0x100, 0],
    [0xb, 1, 0x5, 0x1, 0x201, 0],
    [0xd, 0, 0x207, 0x240, 0x988, 0],
    [0xd, 1, 0xf, 0x240, 0, 0],
    [0xd, 2, 0x100, 0x240, 0, 0],
    [0xd, 9, 0x8, 0x980, 0, 0],
    [0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
    [0x4000_0001, 0, 0x0100_7efb, 0, 0, 0],
    [0x8000_0000, 0, 0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    [0x8000_0001, 0, 0x00a0_0f11, 0x4000_0000, 0x00c0_03f7, 0x2fd3_fbff],
    [0x8000_0002, 0, 0x2044_4d41, 0x4359_5045, 0, 0],
    [0x8000_0005, 0, 0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140],
    [0x8000_0006, 0, 0x4800_2200, 0x6800_4200, 0x0200_6140, 0x0600_9140],
    [0x8000_0007, 0, 0, 0, 0, 0x100],
    [0x8000_0008, 0, 0x3030, 0x1302_d205, 0x7000, 0],
    [0x8000_000a, 0, 0x1, 0x8, 0, 0x1001_943b],
    [0x8000_0019, 0, 0xf040_f040, 0xf040_0000, 0, 0],
    [0x8000_001a, 0, 0x6, 0, 0, 0],
    [0x8000_001d, 0, 0x121, 0x01c0_003f, 0x3f, 0],
    [0x8000_001d, 1, 0x122, 0x01c0_003f, 0x3f, 0],
];

#[rustfmt::skip]
const INTEL_ICELAKE: [Row; 25] = [
    [0x0, 0, 0x1b, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
    [0x1, 0, 0x0006_06a6, 0x0001_0800, 0xf7fa_3227, 0x0fab_fbff],
    [0x2, 0, 0x00fe_ff01, 0xf0, 0, 0],
    [0x4, 0, 0x121, 0x02c0_003f, 0x3f, 0],
    [0x4, 1, 0x122, 0x01c0_003f, 0x3f, 0],
    [0x6, 0, 0x4, 0, 0, 0],
    [0x7, 0, 0x2, 0xf1bf_27eb, 0x0041_5f4e, 0xac00_0410],
    [0x7, 2, 0, 0, 0, 0x1],
    [0xb, 0, 0, 0x1, 0x100, 0],
    [0xb, 1, 0x7, 0x1, 0x201, 0],
    [0xd, 0, 0x2e7, 0x240, 0xa88, 0],
    [0xd, 1, 0xf, 0x240, 0, 0],
    [0xd, 2, 0x100, 0x240, 0, 0],
    [0xd, 5, 0x40, 0x440, 0, 0],
    [0xd, 6, 0x200, 0x480, 0, 0],
    [0xd, 7, 0x400, 0x680, 0, 0],
    [0xd, 9, 0x8, 0xa80, 0, 0],
    [0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
    [0x4000_0001, 0, 0x0100_7efb, 0, 0, 0],
    [0x8000_0000, 0, 0x8000_0008, 0, 0, 0],
    [0x8000_0001, 0, 0, 0, 0x121, 0x2c10_0800],
    [0x8000_0002, 0, 0x6574_6e49, 0x2952_286c, 0x6f65_5820, 0x2952_286e],
    [0x8000_0006, 0, 0, 0, 0x0100_6040, 0],
    [0x8000_0007, 0, 0, 0, 0, 0x100],
    [0x8000_0008, 0, 0x392e, 0x0100_d200, 0, 0],
];
