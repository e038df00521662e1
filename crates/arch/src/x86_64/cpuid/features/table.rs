//! All named feature bits. Names are Linux's, as shown in /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h),
//! or QEMU's (target/i386/cpu.c) where Linux has none.
//!
//! Bits that describe the topology (HTT, CmpLegacy, TopologyExtensions) or what the guest kernel has enabled
//! (OSXSAVE, OSPKE) are left out: a policy doesn't choose them.

use kvm_bindings::kvm_cpuid_entry2;

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    pub(super) fn of(self, entry: &kvm_cpuid_entry2) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }

    pub(super) fn of_mut(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

/// A register of a sub-leaf that consists of feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    pub(super) function: u32,
    pub(super) index: u32,
    pub(super) register: Register,
}

impl Word {
    /// Whether `entry` has this register.
    pub(super) fn is_in(self, entry: &kvm_cpuid_entry2) -> bool {
        (self.function, self.index) == (entry.function, entry.index)
    }
}

/// A feature bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Feature {
    pub(super) word: Word,
    pub(super) bit: u8,
    pub(super) name: &'static str,
}

impl Feature {
    /// The bit in its register.
    pub(super) fn mask(self) -> u32 {
        1 << self.bit
    }

    pub(super) fn is_in(self, entries: &[kvm_cpuid_entry2]) -> bool {
        let entry = entries.iter().find(|entry| self.word.is_in(entry));
        entry.is_some_and(|entry| self.word.register.of(entry) & self.mask() != 0)
    }
}

/// All features, by leaf and bit.
pub(super) fn all() -> impl Iterator<Item = Feature> {
    let features = |&(word, bits): &(Word, &'static [(u8, &'static str)])| {
        bits.iter().map(move |&(bit, name)| Feature { word, bit, name })
    };
    TABLE.iter().flat_map(features)
}

/// The words that consist of features.
pub(super) fn words() -> impl Iterator<Item = Word> {
    TABLE.iter().map(|(word, _)| *word)
}

/// The feature called `name`. QEMU's spellings are accepted too: `sse4.2`, `avx512vnni` and `tsc-deadline`
/// find `sse4_2`, `avx512_vnni` and `tsc_deadline_timer`.
pub(super) fn find(name: &str) -> Option<Feature> {
    let plain = |name: &str| name.replace(['_', '-', '.'], "");
    let asked = plain(name);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == asked);
    let asked = alias.map_or(asked, |(_, name)| plain(name));
    all().find(|feature| plain(feature.name) == asked)
}

/// Other common names, without separators, and ours.
const ALIASES: &[(&str, &str)] = &[
    ("sse3", "pni"),
    ("lzcnt", "abm"),
    ("tscdeadline", "tsc_deadline_timer"),
    ("mwait", "monitor"),
    ("ffxsr", "fxsr_opt"),
    ("shani", "sha_ni"),
    ("speculationcontrol", "spec_ctrl"),
    ("nonstoptsc", "invtsc"),
    ("constanttsc", "invtsc"),
    ("cetss", "shstk"),
    ("cetibt", "ibt"),
];

const fn word(function: u32, index: u32, register: Register) -> Word {
    Word { function, index, register }
}

/// Intel SDM volume 2, CPUID; AMD64 APM volume 3, appendix E; KVM cpuid.rst.
#[rustfmt::skip]
const TABLE: &[(Word, &[(u8, &str)])] = &[
    (word(1, 0, Register::Ecx), &[
        (0, "pni"), (1, "pclmulqdq"), (2, "dtes64"), (3, "monitor"), (4, "ds_cpl"), (5, "vmx"), (6, "smx"), (7, "est"),
        (8, "tm2"), (9, "ssse3"), (10, "cid"), (11, "sdbg"), (12, "fma"), (13, "cx16"), (14, "xtpr"), (15, "pdcm"),
        (17, "pcid"), (18, "dca"), (19, "sse4_1"), (20, "sse4_2"), (21, "x2apic"), (22, "movbe"), (23, "popcnt"),
        (24, "tsc_deadline_timer"), (25, "aes"), (26, "xsave"), (28, "avx"), (29, "f16c"), (30, "rdrand"),
        (31, "hypervisor"),
    ]),
    (word(1, 0, Register::Edx), &[
        (0, "fpu"), (1, "vme"), (2, "de"), (3, "pse"), (4, "tsc"), (5, "msr"), (6, "pae"), (7, "mce"), (8, "cx8"),
        (9, "apic"), (11, "sep"), (12, "mtrr"), (13, "pge"), (14, "mca"), (15, "cmov"), (16, "pat"), (17, "pse36"),
        (18, "pn"), (19, "clflush"), (21, "dts"), (22, "acpi"), (23, "mmx"), (24, "fxsr"), (25, "sse"), (26, "sse2"),
        (27, "ss"), (29, "tm"), (31, "pbe"),
    ]),
    (word(6, 0, Register::Eax), &[(2, "arat")]),
    (word(7, 0, Register::Ebx), &[
        (0, "fsgsbase"), (1, "tsc_adjust"), (2, "sgx"), (3, "bmi1"), (4, "hle"), (5, "avx2"), (6, "fdp_excptn_only"),
        (7, "smep"), (8, "bmi2"), (9, "erms"), (10, "invpcid"), (11, "rtm"), (12, "cqm"), (13, "zero_fcs_fds"),
        (14, "mpx"), (15, "rdt_a"), (16, "avx512f"), (17, "avx512dq"), (18, "rdseed"), (19, "adx"), (20, "smap"),
        (21, "avx512ifma"), (23, "clflushopt"), (24, "clwb"), (25, "intel_pt"), (26, "avx512pf"), (27, "avx512er"),
        (28, "avx512cd"), (29, "sha_ni"), (30, "avx512bw"), (31, "avx512vl"),
    ]),
    (word(7, 0, Register::Ecx), &[
        (0, "prefetchwt1"), (1, "avx512vbmi"), (2, "umip"), (3, "pku"), (5, "waitpkg"), (6, "avx512_vbmi2"),
        (7, "shstk"), (8, "gfni"), (9, "vaes"), (10, "vpclmulqdq"), (11, "avx512_vnni"), (12, "avx512_bitalg"),
        (13, "tme"), (14, "avx512_vpopcntdq"), (16, "la57"), (22, "rdpid"), (24, "bus_lock_detect"), (25, "cldemote"),
        (27, "movdiri"), (28, "movdir64b"), (29, "enqcmd"), (30, "sgx_lc"), (31, "pks"),
    ]),
    (word(7, 0, Register::Edx), &[
        (2, "avx512_4vnniw"), (3, "avx512_4fmaps"), (4, "fsrm"), (5, "uintr"), (8, "avx512_vp2intersect"),
        (10, "md_clear"), (14, "serialize"), (15, "hybrid_cpu"), (16, "tsxldtrk"), (18, "pconfig"), (19, "arch_lbr"),
        (20, "ibt"), (22, "amx_bf16"), (23, "avx512_fp16"), (24, "amx_tile"), (25, "amx_int8"), (26, "spec_ctrl"),
        (27, "stibp"), (28, "flush_l1d"), (29, "arch_capabilities"), (30, "core_capabilities"), (31, "ssbd"),
    ]),
    (word(7, 1, Register::Eax), &[
        (0, "sha512"), (1, "sm3"), (2, "sm4"), (4, "avx_vnni"), (5, "avx512_bf16"), (7, "cmpccxadd"), (10, "fzrm"),
        (11, "fsrs"), (12, "fsrc"), (17, "fred"), (18, "lkgs"), (19, "wrmsrns"), (21, "amx_fp16"), (23, "avx_ifma"),
        (26, "lam"),
    ]),
    (word(7, 1, Register::Edx), &[
        (4, "avx_vnni_int8"), (5, "avx_ne_convert"), (8, "amx_complex"), (10, "avx_vnni_int16"), (14, "prefetchi"),
        (19, "avx10"), (21, "apx_f"),
    ]),
    (word(7, 2, Register::Edx), &[
        (0, "intel_psfd"), (1, "ipred_ctrl"), (2, "rrsba_ctrl"), (3, "ddpd_u"), (4, "bhi_ctrl"), (5, "mcdt_no"),
    ]),
    (word(0xd, 1, Register::Eax), &[
        (0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves"), (4, "xfd"),
    ]),
    (word(0x8000_0001, 0, Register::Ecx), &[
        (0, "lahf_lm"), (2, "svm"), (3, "extapic"), (4, "cr8_legacy"), (5, "abm"), (6, "sse4a"), (7, "misalignsse"),
        (8, "3dnowprefetch"), (9, "osvw"), (10, "ibs"), (11, "xop"), (12, "skinit"), (13, "wdt"), (15, "lwp"),
        (16, "fma4"), (17, "tce"), (19, "nodeid_msr"), (21, "tbm"), (23, "perfctr_core"), (24, "perfctr_nb"),
        (26, "bpext"), (27, "ptsc"), (28, "perfctr_llc"), (29, "mwaitx"),
    ]),
    (word(0x8000_0001, 0, Register::Edx), &[
        (11, "syscall"), (20, "nx"), (22, "mmxext"), (25, "fxsr_opt"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm"),
        (30, "3dnowext"), (31, "3dnow"),
    ]),
    (word(0x8000_0007, 0, Register::Ebx), &[(0, "overflow_recov"), (1, "succor"), (3, "smca")]),
    (word(0x8000_0007, 0, Register::Edx), &[(8, "invtsc")]),
    (word(0x8000_0008, 0, Register::Ebx), &[
        (0, "clzero"), (1, "irperf"), (2, "xsaveerptr"), (4, "rdpru"), (9, "wbnoinvd"), (12, "ibpb"), (14, "ibrs"),
        (15, "amd_stibp"), (17, "stibp_always_on"), (23, "amd_ppin"), (24, "amd_ssbd"), (25, "virt_ssbd"),
        (26, "amd_ssb_no"), (28, "amd_psfd"), (29, "btc_no"), (30, "ibpb_ret"),
    ]),
    (word(0x8000_0021, 0, Register::Eax), &[
        (0, "no_nested_data_bp"), (2, "lfence_rdtsc"), (6, "null_sel_clr_base"), (8, "autoibrs"), (9, "no_smm_ctl_msr"),
        (27, "sbpb"), (28, "ibpb_brtype"), (29, "srso_no"),
    ]),
    (word(0x8000_0022, 0, Register::Eax), &[(0, "perfmon_v2")]),
    (word(0x4000_0001, 0, Register::Eax), &[
        (0, "kvmclock_old"), (1, "kvm_nopiodelay"), (3, "kvmclock"), (4, "kvm_asyncpf"), (5, "kvm_steal_time"),
        (6, "kvm_pv_eoi"), (7, "kvm_pv_unhalt"), (9, "kvm_pv_tlb_flush"), (10, "kvm_asyncpf_vmexit"),
        (11, "kvm_pv_ipi"), (12, "kvm_poll_control"), (13, "kvm_pv_sched_yield"), (14, "kvm_asyncpf_int"),
        (24, "kvmclock_stable_bit"),
    ]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn table_has_each_name_and_each_bit_once() {
        let plain: BTreeSet<_> = all().map(|feature| feature.name.replace('_', "")).collect();
        let bits: BTreeSet<_> = all().map(|feature| (feature.word, feature.bit)).collect();
        assert_eq!((plain.len(), bits.len()), (all().count(), all().count()));
    }

    #[test]
    fn find_knows_linux_and_qemu_names() {
        let bit = |name| find(name).map(|feature| (feature.word.function, feature.bit));
        assert_eq!(bit("sse4_2"), Some((1, 20)));
        assert_eq!(bit("sse4.2"), Some((1, 20)));
        assert_eq!(bit("sse3"), Some((1, 0)));
        assert_eq!(bit("tsc-deadline"), Some((1, 24)));
        assert_eq!(bit("avx512-vnni"), Some((7, 11)));
        assert_eq!(bit("kvm-steal-time"), Some((0x4000_0001, 5)));
        assert_eq!(bit("avx3"), None);
    }

    #[test]
    fn aliases_are_of_features_that_there_are() {
        let unknown: Vec<_> = ALIASES.iter().filter(|(alias, _)| find(alias).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
