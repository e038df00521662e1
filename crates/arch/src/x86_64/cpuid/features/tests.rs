use std::collections::BTreeMap;

use super::hosts::{amd_milan, intel_icelake};
use super::*;
use crate::cpuid::tests::{HOST, entry, get, place};
use crate::cpuid::{Host, policy};
use crate::topology::Topology;

fn parsed(words: &[&str]) -> FeaturePolicy {
    FeaturePolicy::parse(words.iter().copied()).unwrap()
}

fn refusal(words: &[&str]) -> (usize, String) {
    let (index, error) = FeaturePolicy::parse(words.iter().copied()).unwrap_err();
    (index, error.to_string())
}

/// The CPUID of the first of two processors.
fn shown(host: &[kvm_cpuid_entry2], words: &[&str]) -> Vec<kvm_cpuid_entry2> {
    let made = policy(host, place(0, Topology::one_socket(2)), Host { tsc_khz: Some(2_000_000), ..HOST });
    parsed(words).restrict(made).unwrap()
}

fn has(entries: &[kvm_cpuid_entry2], name: &str) -> bool {
    table::find(name).unwrap().is_in(entries)
}

/// What a guest reads, without leaves of zeros and without the differences that [`FeaturePolicy::restrict`]
/// allows between two hosts.
fn comparable(entries: &[kvm_cpuid_entry2]) -> BTreeMap<(u32, u32), [u32; 4]> {
    let masked = |entry: &kvm_cpuid_entry2| {
        let registers = [entry.eax, entry.ebx, entry.ecx, entry.edx];
        let mask = match entry.function {
            0 => [!0, 0, 0, 0],
            1 => [0, 0xff, !0, !topology::HTT],
            0x8000_0001 => [0, 0, !(topology::CMP_LEGACY | topology::TOPOEXT), !0],
            0x8000_0008 => [LINEAR_BITS, !0, 0, !0],
            2
            | 4
            | 0xb
            | 0x4000_0010
            | 0x8000_0000
            | 0x8000_0002..=0x8000_0006
            | 0x8000_001d
            | 0x8000_001e => [0; 4],
            _ => [!0; 4],
        };
        std::array::from_fn(|at| registers[at] & mask[at])
    };
    let leaves = entries.iter().map(|entry| ((entry.function, entry.index), masked(entry)));
    leaves.filter(|(_, registers)| *registers != [0; 4]).collect()
}

#[test]
fn baselines_show_the_same_on_unlike_hosts() {
    for words in
        [&["x86-64-v1"][..], &["x86-64-v2"], &["x86-64-v3"], &["x86-64-v3", "+aes", "+rdrand", "-f16c"]]
    {
        let (amd, intel) =
            (comparable(&shown(&amd_milan(), words)), comparable(&shown(&intel_icelake(), words)));
        assert_eq!(amd, intel, "{words:?}");
        assert!(amd.contains_key(&(1, 0)) && amd.contains_key(&(0x8000_0001, 0)));
    }
    assert_ne!(comparable(&shown(&amd_milan(), &["host"])), comparable(&shown(&intel_icelake(), &["host"])));
}

/// The bits are from the psABI's table and the SDM, not from this crate's tables.
#[test]
fn v2_is_what_the_psabi_says_and_what_kvm_needs() {
    let got = shown(&amd_milan(), &["x86-64-v2"]);
    // SSE3 0, SSSE3 9, CX16 13, SSE4.1 19, SSE4.2 20, x2APIC 21, POPCNT 23, TSC deadline 24, hypervisor 31.
    assert_eq!(
        get(&got, 1, 0).ecx,
        1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 24 | 1 << 31
    );
    // As on every 64-bit processor (0x078b_fbff), without VME, with HTT for two processors.
    assert_eq!(get(&got, 1, 0).edx, 0x078b_fbfd | 1 << 28);
    // Only TSC_ADJUST.
    let leaf = get(&got, 7, 0);
    assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (0, 2, 0, 0));
    // LAHF 0, CmpLegacy 1, TopologyExtensions 22; SYSCALL 11, NX 20, LM 29.
    let leaf = get(&got, 0x8000_0001, 0);
    assert_eq!((leaf.ecx, leaf.edx), (1 | 1 << 1 | 1 << 22, 1 << 11 | 1 << 20 | 1 << 29));
    assert_eq!((get(&got, 0x8000_0007, 0).edx, get(&got, 0x8000_0008, 0).ebx), (0, 0));
    assert!(got.iter().all(|entry| entry.function != 0xd), "no XSAVE");
    assert_eq!((get(&got, 0, 0).eax, get(&got, 0x8000_0000, 0).eax), (0xd, 0x8000_001e));
}

#[test]
fn v3_has_the_state_of_avx_and_no_other() {
    let got = shown(&intel_icelake(), &["x86-64-v3"]);
    // FMA 12, MOVBE 22, XSAVE 26, AVX 28, F16C 29; BMI1 3, AVX2 5, BMI2 8; LZCNT 5.
    assert_eq!(get(&got, 1, 0).ecx & 0x3440_1000, 0x3440_1000);
    assert_eq!(get(&got, 7, 0).ebx, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 8);
    assert_eq!(get(&got, 0x8000_0001, 0).ecx & 1 << 5, 1 << 5);
    let leaf = get(&got, 0xd, 0);
    // x87 and SSE, 576 bytes; AVX, 256 bytes.
    assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (7, 576, 832, 0));
    assert_eq!((get(&got, 0xd, 1).eax, get(&got, 0xd, 1).ebx), (0, 0));
    let sub_leaves: Vec<_> =
        got.iter().filter(|entry| entry.function == 0xd).map(|entry| entry.index).collect();
    assert_eq!(sub_leaves, [0, 1, 2]);
}

#[test]
fn v4_has_the_state_of_avx_512_and_no_protection_keys() {
    let leaf = get(&shown(&intel_icelake(), &["x86-64-v4"]), 0xd, 0);
    assert_eq!((leaf.eax, leaf.ecx), (0xe7, 0x680 + 0x400));
}

#[test]
fn host_is_what_it_was() {
    let made = policy(&intel_icelake(), place(0, Topology::one_socket(1)), HOST);
    assert_eq!(parsed(&["host"]).restrict(made.clone()).unwrap(), made);
    assert_eq!(FeaturePolicy::default().restrict(made.clone()).unwrap(), made);
}

#[test]
fn avx_that_is_removed_takes_along_all_that_needs_it_and_its_state() {
    let got = shown(&intel_icelake(), &["-avx"]);
    let gone = ["avx", "avx2", "fma", "f16c", "vaes", "vpclmulqdq", "avx512f", "avx512vl", "avx512_bitalg"];
    assert_eq!(gone.map(|name| has(&got, name)), [false; 9]);
    assert_eq!(["aes", "xsave", "pku", "gfni"].map(|name| has(&got, name)), [true; 4]);
    // x87, SSE and protection keys, whose offset is fixed by the hardware.
    let leaf = get(&got, 0xd, 0);
    assert_eq!((leaf.eax, leaf.ebx, leaf.ecx), (0x203, 576, 0xa88));
    let sub_leaves: Vec<_> =
        got.iter().filter(|entry| entry.function == 0xd).map(|entry| entry.index).collect();
    assert_eq!(sub_leaves, [0, 1, 9]);
}

#[test]
fn pku_that_is_removed_shortens_the_area() {
    let leaf = get(&shown(&amd_milan(), &["-pku"]), 0xd, 0);
    assert_eq!((leaf.eax, leaf.ecx), (7, 832));
}

#[test]
fn xsave_that_is_removed_leaves_no_state_at_all() {
    let got = shown(&amd_milan(), &["host", "-xsave"]);
    assert_eq!(["xsave", "avx", "avx2", "pku", "xsaves"].map(|name| has(&got, name)), [false; 5]);
    assert!(got.iter().all(|entry| entry.function != 0xd));
}

#[test]
fn removal_leaves_the_rest_of_the_host_even_bits_without_a_name() {
    let mut host = amd_milan();
    // Leaf 7 ECX bit 26 and leaf 0x2f are unassigned.
    host.iter_mut().find(|entry| entry.function == 7).unwrap().ecx |= 1 << 26;
    host.push(kvm_cpuid_entry2 { eax: 5, ..entry(0x2f, 0) });
    let got = shown(&host, &["-rdpid"]);
    assert_eq!(get(&got, 7, 0).ecx, get(&host, 7, 0).ecx & !(1 << 22));
    assert_eq!(get(&got, 0x2f, 0).eax, 5);
    let baseline = shown(&host, &["x86-64-v2"]);
    assert_eq!(get(&baseline, 7, 0).ecx, 0);
    assert!(baseline.iter().all(|entry| entry.function != 0x2f));
}

#[test]
fn removal_reaches_amds_copies_and_other_vendors_bits() {
    let got = shown(&amd_milan(), &["-mtrr", "-ssbd", "-stibp"]);
    assert_eq!((get(&got, 1, 0).edx & 1 << 12, get(&got, 0x8000_0001, 0).edx & 1 << 12), (0, 0));
    let names = ["ssbd", "amd_ssbd", "virt_ssbd", "stibp", "amd_stibp"];
    assert_eq!(names.map(|name| has(&got, name)), [false; 5]);
    assert!(has(&got, "ibrs") && has(&got, "spec_ctrl"));
}

#[test]
fn removal_of_svm_takes_its_leaf_along() {
    let got = shown(&amd_milan(), &["-svm"]);
    assert!(!has(&got, "svm") && got.iter().all(|entry| entry.function != 0x8000_000a));
}

#[test]
fn removal_of_la57_shortens_addresses() {
    // 46 physical and 57 linear address bits.
    assert_eq!(get(&shown(&intel_icelake(), &["host"]), 0x8000_0008, 0).eax, 0x392e);
    assert_eq!(get(&shown(&intel_icelake(), &["-la57"]), 0x8000_0008, 0).eax, 0x302e);
    assert_eq!(get(&shown(&intel_icelake(), &["x86-64-v2"]), 0x8000_0008, 0).eax, 0x302e);
}

#[test]
fn removal_reaches_what_kvm_never_lists_but_is_shown() {
    let got = shown(&amd_milan(), &["-hypervisor", "-tsc_deadline_timer"]);
    assert_eq!(get(&got, 1, 0).ecx & (1 << 31 | 1 << 24), 0);
}

#[test]
fn feature_that_is_added_brings_what_it_needs() {
    let got = shown(&amd_milan(), &["x86-64-v2", "+avx2"]);
    assert_eq!(
        ["avx2", "avx", "xsave", "fma", "bmi2"].map(|name| has(&got, name)),
        [true, true, true, false, false]
    );
    assert_eq!(get(&got, 0xd, 0).eax, 7);
}

#[test]
fn feature_that_the_host_lacks_is_named() {
    let made = policy(&amd_milan(), place(0, Topology::one_socket(1)), HOST);
    let error = parsed(&["host", "+avx512f", "+aes"]).restrict(made.clone()).unwrap_err();
    assert_eq!(error.to_string(), "this host's KVM lacks avx512f, which host +avx512f +aes requires");
    let error = parsed(&["x86-64-v4", "-avx512cd"]).restrict(made).unwrap_err();
    assert_eq!(error.names, ["avx512f", "avx512dq", "avx512bw", "avx512vl"]);
}

#[test]
fn deadline_timer_that_kvm_lacks_is_missed_by_a_baseline() {
    let host = Host { tsc_deadline: false, ..HOST };
    let made = policy(&intel_icelake(), place(0, Topology::one_socket(1)), host);
    assert_eq!(parsed(&["x86-64-v2"]).restrict(made).unwrap_err().names, ["tsc_deadline_timer"]);
}

#[test]
fn words_that_are_no_policy_are_refused_with_their_index() {
    assert_eq!(refusal(&["x86-64-v5"]), (0, "unknown CPU baseline \"x86-64-v5\"".to_owned()));
    assert_eq!(refusal(&["host", "+avx3"]), (1, "unknown CPU feature \"avx3\"".to_owned()));
    assert_eq!(refusal(&["-aes", "host"]).0, 1);
    assert_eq!(refusal(&["-aes", "+x2apic", "+aes"]), (2, "aes is named twice, keep one".to_owned()));
    assert_eq!(refusal(&["host", "-lm"]), (1, "lm can't be removed: a 64-bit guest needs it".to_owned()));
    let conflict = "+avx2 needs avx, which the list removes; keep one of them";
    assert_eq!(refusal(&["host", "+avx2", "-avx"]), (1, conflict.to_owned()));
}

/// Removing `spec_ctrl`, Intel's bit for both, keeps a mirror that the list adds explicitly.
#[test]
fn feature_asked_for_stays_though_its_mirror_goes() {
    let got = shown(&amd_milan(), &["host", "-spec_ctrl", "+ibpb"]);
    assert_eq!(["spec_ctrl", "ibrs", "ibpb"].map(|name| has(&got, name)), [false, false, true]);
}

#[test]
fn policy_is_shown_as_it_is_written() {
    assert_eq!(FeaturePolicy::default().to_string(), "host");
    assert_eq!(parsed(&["x86-64-v2", "+aes", "-sse4.2"]).to_string(), "x86-64-v2 +aes -sse4_2");
    assert_eq!(parsed(&["-avx"]).to_string(), "host -avx");
}
