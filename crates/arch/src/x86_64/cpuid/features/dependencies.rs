//! Dependencies between features: a guest never sees a feature without those it depends on.

use std::collections::BTreeSet;

use super::table::{self, Feature};

/// Features and what they depend on. Taken from Linux (arch/x86/kernel/cpu/cpuid-deps.c), extended by the
/// chain of vector extensions that compilers assume: `-mavx` implies SSE4.2, and so on.
#[rustfmt::skip]
const NEEDS: &[(&str, &[&str])] = &[
    ("pni", &["sse2"]), ("ssse3", &["pni"]), ("sse4_1", &["ssse3"]), ("sse4_2", &["sse4_1"]), ("sse4a", &["pni"]),
    ("aes", &["sse2"]), ("pclmulqdq", &["sse2"]), ("sha_ni", &["sse2"]), ("gfni", &["sse2"]),
    ("mmxext", &["mmx"]), ("3dnow", &["mmx"]), ("3dnowext", &["3dnow"]), ("fxsr_opt", &["fxsr"]),
    ("xsaveopt", &["xsave"]), ("xsavec", &["xsave"]), ("xgetbv1", &["xsave"]), ("xsaves", &["xsave"]),
    ("xfd", &["xsaves", "xgetbv1"]), ("xsaveerptr", &["xsave"]), ("pku", &["xsave"]), ("mpx", &["xsave"]),
    ("lwp", &["xsave"]), ("apx_f", &["xsave"]), ("shstk", &["xsaves"]), ("ibt", &["xsaves"]), ("uintr", &["xsaves"]),
    ("enqcmd", &["xsaves"]),
    ("avx", &["xsave", "sse4_2"]), ("fma", &["avx"]), ("f16c", &["avx"]), ("fma4", &["avx"]), ("xop", &["avx"]),
    ("vaes", &["avx", "aes"]), ("vpclmulqdq", &["avx", "pclmulqdq"]),
    ("avx2", &["avx"]), ("avx_vnni", &["avx2"]), ("avx_ifma", &["avx2"]), ("avx_vnni_int8", &["avx2"]),
    ("avx_vnni_int16", &["avx2"]), ("avx_ne_convert", &["avx2"]), ("sha512", &["avx2"]), ("sm3", &["avx"]),
    ("sm4", &["avx2"]),
    ("avx512f", &["avx2", "fma", "f16c"]), ("avx512dq", &["avx512f"]), ("avx512cd", &["avx512f"]),
    ("avx512bw", &["avx512f"]), ("avx512vl", &["avx512f"]), ("avx512ifma", &["avx512f"]), ("avx512pf", &["avx512f"]),
    ("avx512er", &["avx512f"]), ("avx512vbmi", &["avx512bw"]), ("avx512_4vnniw", &["avx512f"]),
    ("avx512_4fmaps", &["avx512f"]), ("avx512_vpopcntdq", &["avx512f"]), ("avx512_vbmi2", &["avx512bw"]),
    ("avx512_vnni", &["avx512f"]), ("avx512_bitalg", &["avx512bw"]), ("avx512_vp2intersect", &["avx512f"]),
    ("avx512_bf16", &["avx512bw"]), ("avx512_fp16", &["avx512bw", "avx512vl", "avx512dq"]),
    ("avx10", &["avx512_fp16"]),
    ("amx_tile", &["xfd"]), ("amx_bf16", &["amx_tile"]), ("amx_int8", &["amx_tile"]), ("amx_fp16", &["amx_tile"]),
    ("amx_complex", &["amx_tile"]),
    ("invpcid", &["pcid"]), ("sgx_lc", &["sgx"]), ("fred", &["lkgs"]), ("skinit", &["svm"]),
    ("perfmon_v2", &["perfctr_core"]),
    ("x2apic", &["apic"]), ("tsc_deadline_timer", &["apic", "tsc"]), ("arat", &["apic"]), ("tsc_adjust", &["tsc"]),
    ("rdtscp", &["tsc"]), ("invtsc", &["tsc"]), ("kvmclock", &["tsc"]), ("kvmclock_old", &["tsc"]),
    ("kvmclock_stable_bit", &["kvmclock"]), ("kvm_asyncpf_vmexit", &["kvm_asyncpf"]),
    ("kvm_asyncpf_int", &["kvm_asyncpf"]), ("kvm_pv_ipi", &["apic"]), ("kvm_pv_eoi", &["apic"]),
];

/// Features that other vendors report in other bits: removing one removes its mirrors.
const MIRRORS: &[(&str, &[&str])] = &[
    ("spec_ctrl", &["ibrs", "ibpb"]),
    ("ibrs", &["spec_ctrl"]),
    ("ibpb", &["spec_ctrl"]),
    ("stibp", &["amd_stibp"]),
    ("ssbd", &["amd_ssbd", "virt_ssbd"]),
    ("kvmclock", &["kvmclock_old"]),
];

/// The feature called `name`, which must be in the table.
pub(super) fn named(name: &str) -> Feature {
    table::find(name).expect("a test checks that all names used here are in the table")
}

/// The direct dependencies of `feature`.
fn needs(feature: Feature) -> impl Iterator<Item = Feature> {
    let row = NEEDS.iter().find(|(name, _)| *name == feature.name);
    row.into_iter().flat_map(|(_, needed)| needed.iter().copied().map(named))
}

/// `features` and everything they depend on.
pub(super) fn with_needs(features: impl IntoIterator<Item = Feature>) -> BTreeSet<Feature> {
    closure(features, |feature| needs(feature).collect())
}

/// `features` and everything that depends on them.
pub(super) fn with_dependents(features: impl IntoIterator<Item = Feature>) -> BTreeSet<Feature> {
    closure(features, |feature| {
        let rows = NEEDS.iter().filter(|(_, needed)| needed.contains(&feature.name));
        rows.map(|(name, _)| named(name)).collect()
    })
}

/// The mirrors of `features`.
pub(super) fn mirrors(features: &BTreeSet<Feature>) -> impl Iterator<Item = Feature> {
    let rows = MIRRORS.iter().filter(|(name, _)| features.contains(&named(name)));
    rows.flat_map(|(_, others)| others.iter().copied().map(named))
}

/// The transitive closure of `features` under `next`.
fn closure(
    features: impl IntoIterator<Item = Feature>,
    next: impl Fn(Feature) -> Vec<Feature>,
) -> BTreeSet<Feature> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = features.into_iter().collect();
    while let Some(feature) = open.pop() {
        if found.insert(feature) {
            open.extend(next(feature));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(features: BTreeSet<Feature>) -> BTreeSet<&'static str> {
        features.into_iter().map(|feature| feature.name).collect()
    }

    #[test]
    fn dependencies_are_of_features_that_there_are_by_their_own_names() {
        let rows = NEEDS.iter().chain(MIRRORS);
        let unknown: Vec<_> = rows
            .flat_map(|(name, others)| others.iter().chain([name]))
            .filter(|name| table::find(name).is_none_or(|feature| feature.name != **name))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn avx_takes_along_all_that_needs_it() {
        let gone = names(with_dependents([named("avx")]));
        for name in
            ["avx2", "fma", "f16c", "vaes", "vpclmulqdq", "avx512f", "avx512vl", "avx512_vnni", "avx10"]
        {
            assert!(gone.contains(name), "{name}");
        }
        assert!(!gone.contains("xsave") && !gone.contains("aes") && !gone.contains("pku"));
    }

    #[test]
    fn xsave_takes_along_all_state_that_it_saves() {
        let gone = names(with_dependents([named("xsave")]));
        for name in ["avx", "avx2", "avx512f", "pku", "mpx", "xsaves", "shstk", "amx_tile", "amx_int8"] {
            assert!(gone.contains(name), "{name}");
        }
    }

    #[test]
    fn avx2_brings_what_it_needs_and_no_more() {
        let brought = names(with_needs([named("avx2")]));
        assert_eq!(
            brought,
            ["avx2", "avx", "xsave", "sse4_2", "sse4_1", "ssse3", "pni", "sse2"].into_iter().collect()
        );
    }
}
