//! Leaf 0xd: the XSAVE state components, adjusted to the features that are kept.

use kvm_bindings::kvm_cpuid_entry2;

const LEAF: u32 = 0xd;
/// Length of the legacy region and the header, with which every XSAVE area begins.
const LEGACY_LEN: u32 = 512 + 64;
/// Sub-leaf ECX bit 0: a supervisor component, enabled in IA32_XSS instead of XCR0.
const SUPERVISOR: u32 = 1;

/// State components, as bits of XCR0 or IA32_XSS, and the features of which at least one must be present
/// (Intel SDM volume 1, chapter 13; AMD64 APM volume 2, chapter 11).
const COMPONENTS: &[(u32, &[&str])] = &[
    (0, &["xsave"]),
    (1, &["xsave"]),
    (2, &["avx"]),
    (3, &["mpx"]),
    (4, &["mpx"]),
    (5, &["avx512f"]),
    (6, &["avx512f"]),
    (7, &["avx512f"]),
    (8, &["intel_pt"]),
    (9, &["pku"]),
    (10, &["enqcmd"]),
    (11, &["shstk", "ibt"]),
    (12, &["shstk", "ibt"]),
    (14, &["uintr"]),
    (15, &["arch_lbr"]),
    (17, &["amx_tile"]),
    (18, &["amx_tile"]),
    (19, &["apx_f"]),
    (62, &["lwp"]),
];

/// What to do with components that aren't listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownComponents {
    Kept,
    Removed,
}

/// Restricts leaf 0xd to the components of features for which `has` is true.
pub(super) fn fit(
    entries: &mut Vec<kvm_cpuid_entry2>,
    has: impl Fn(&str) -> bool,
    unknown: UnknownComponents,
) {
    if !has("xsave") {
        entries.retain(|entry| entry.function != LEAF);
        return;
    }
    let is_kept = |bit: u32| match COMPONENTS.iter().find(|(component, _)| *component == bit) {
        Some((_, features)) => features.iter().any(|feature| has(feature)),
        None => unknown == UnknownComponents::Kept,
    };
    let mask = (0..64).filter(|bit| is_kept(*bit)).fold(0_u64, |mask, bit| mask | 1 << bit);
    let (has_xsaves, has_compaction) = (has("xsaves"), has("xsavec") || has("xsaves"));
    entries.retain(|entry| {
        let is_supervisor = entry.ecx & SUPERVISOR != 0;
        entry.function != LEAF || entry.index < 2 || is_kept(entry.index) && (has_xsaves || !is_supervisor)
    });
    let area_len = area_len(entries);
    for entry in entries.iter_mut().filter(|entry| entry.function == LEAF) {
        // EBX holds the length for the components currently enabled. KVM updates it for the guest; a
        // processor starts with XCR0 1.
        match entry.index {
            0 => {
                entry.eax &= mask as u32;
                entry.edx &= (mask >> 32) as u32;
                (entry.ebx, entry.ecx) = (LEGACY_LEN, area_len);
            }
            1 => {
                let mask = if has_xsaves { mask } else { 0 };
                entry.ebx = if has_compaction { LEGACY_LEN } else { 0 };
                entry.ecx &= mask as u32;
                entry.edx &= (mask >> 32) as u32;
            }
            _ => {}
        }
    }
}

/// Length of an area for all user components: the end of the last one.
fn area_len(entries: &[kvm_cpuid_entry2]) -> u32 {
    let user = |entry: &&kvm_cpuid_entry2| {
        entry.function == LEAF && (2..64).contains(&entry.index) && entry.ecx & SUPERVISOR == 0
    };
    let ends = entries.iter().filter(user).map(|entry| entry.ebx.saturating_add(entry.eax));
    ends.max().unwrap_or(0).max(LEGACY_LEN)
}
