//! Baselines: named sets of features, the same on every host.

use std::collections::BTreeSet;

use super::dependencies::named;
use super::table::Feature;

/// A level of the x86-64 psABI (x86-64-ABI, "Low Level System Information", micro-architecture levels), plus
/// what a KVM guest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// Every 64-bit processor.
    V1,
    /// About 2009: Nehalem, Jaguar and later.
    V2,
    /// About 2015: Haswell, Excavator and later, with AVX2.
    V3,
    /// AVX-512: Skylake's server processors, Zen 4 and later.
    V4,
}

/// Features of every level besides the psABI's: the system features of every 64-bit processor (except VME,
/// which is useless in long mode and which emulators lack), what KVM emulates on every host, and KVM's own
/// features as of Linux 5.10.
#[rustfmt::skip]
const PLATFORM: &[&str] = &[
    "de", "pse", "tsc", "msr", "pae", "mce", "apic", "sep", "mtrr", "pge", "mca", "pat", "pse36", "clflush",
    "nx", "lm",
    "hypervisor", "x2apic", "tsc_deadline_timer", "tsc_adjust", "arat",
    "kvmclock_old", "kvm_nopiodelay", "kvmclock", "kvm_asyncpf", "kvm_steal_time", "kvm_pv_eoi", "kvm_pv_unhalt",
    "kvm_pv_tlb_flush", "kvm_asyncpf_vmexit", "kvm_pv_ipi", "kvm_poll_control", "kvm_pv_sched_yield", "kvm_asyncpf_int",
    "kvmclock_stable_bit",
];

/// Features that each psABI level adds. The psABI's LAHF-SAHF is `lahf_lm`, SCE `syscall`, LZCNT `abm`;
/// OSXSAVE, which the guest kernel sets, is represented by `xsave`.
const LEVELS: [(Baseline, &[&str]); 4] = [
    (Baseline::V1, &["cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"]),
    (Baseline::V2, &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
    (Baseline::V3, &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]),
    (Baseline::V4, &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

impl Baseline {
    /// All levels, in ascending order.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];

    /// The name, as compilers spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    pub(super) fn features(self) -> BTreeSet<Feature> {
        let levels = LEVELS.iter().filter(|(level, _)| *level <= self);
        let names = levels.flat_map(|(_, names)| names.iter()).chain(PLATFORM);
        names.copied().map(named).collect()
    }
}

/// Whether a 64-bit guest can't run without the feature, so that it can't be removed: those of the psABI's
/// first level, and those that Linux additionally requires to boot
/// (arch/x86/include/asm/required-features.h).
pub(super) fn is_essential(feature: Feature) -> bool {
    let system = ["lm", "pae", "msr", "apic"];
    LEVELS[0].1.contains(&feature.name) || system.contains(&feature.name)
}

#[cfg(test)]
mod tests {
    use super::super::dependencies::with_needs;
    use super::*;

    #[test]
    fn baselines_need_nothing_that_they_lack() {
        for level in Baseline::ALL {
            assert_eq!(with_needs(level.features()), level.features(), "{}", level.name());
        }
    }

    /// The psABI's tables list 8, 7, 9 and 5 features, not counting OSFXSR, which isn't a CPUID feature.
    #[test]
    fn baselines_grow_by_the_levels_of_the_psabi() {
        let lens = Baseline::ALL.map(|level| level.features().len() - PLATFORM.len());
        assert_eq!(lens, [8, 15, 24, 29]);
    }
}
