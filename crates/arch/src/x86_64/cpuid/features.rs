//! The CPUID features a guest sees: all of the host's, or a baseline that many hosts share.
//!
//! A baseline is an allow list: features that aren't on it are removed, whether they have a name here or not.
//! Two hosts that support a baseline therefore show equal features. [`FeaturePolicy::restrict`] lists the
//! remaining differences.

mod baseline;
mod dependencies;
#[cfg(test)]
mod hosts;
mod table;
mod xsave;

use std::collections::BTreeSet;
use std::fmt;

use kvm_bindings::kvm_cpuid_entry2;

pub use self::baseline::Baseline;
use self::dependencies::{mirrors, named, with_dependents, with_needs};
use self::table::{Feature, Register};
use self::xsave::UnknownComponents;
use super::leaves::{self, MSI_EXT_DEST_ID, Vendor};
use super::topology;

/// Bits of leaf 0x8000_0001 EDX that are copies of leaf 1 EDX on AMD processors: all but SYSENTER, CLFLUSH,
/// SSE and later ones.
const AMD_COPIES: u32 = 0x0183_f3ff;
/// Linear address width, in leaf 0x8000_0008 EAX, and its value without LA57.
const LINEAR_BITS: u32 = 0xff << 8;
const LINEAR_48: u32 = 48 << 8;
/// The last basic leaf of a baseline, which is the last one with features.
const LAST_LEAF: u32 = 0xd;

/// Leaves that describe one feature in detail, and are meaningless without it.
const DETAILS: &[(&str, u32)] = &[
    ("monitor", 5),
    ("sgx", 0x12),
    ("intel_pt", 0x14),
    ("arch_lbr", 0x1c),
    ("amx_tile", 0x1d),
    ("amx_tile", 0x1e),
    ("avx10", 0x24),
    ("svm", 0x8000_000a),
    ("ibs", 0x8000_001b),
    ("lwp", 0x8000_001c),
    ("perfmon_v2", 0x8000_0022),
];

/// The features a guest sees. The default is all of the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeaturePolicy {
    /// The baseline to start from; `None` is the host.
    baseline: Option<Baseline>,
    /// Features to add, with their dependencies.
    added: BTreeSet<Feature>,
    /// Features to remove, with their dependents.
    removed: BTreeSet<Feature>,
    /// The changes as written, for display.
    changes: Vec<Change>,
}

/// An added or removed feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// Index of the word in the list.
    index: usize,
    sign: Sign,
    feature: Feature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

/// What is wrong with a feature list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturePolicyError {
    /// A word without a sign is neither "host" nor a baseline.
    #[error("unknown CPU baseline \"{0}\"")]
    UnknownBaseline(String),
    /// A word with a sign doesn't name a feature.
    #[error("unknown CPU feature \"{0}\"")]
    UnknownFeature(String),
    /// A word after the first has no sign.
    #[error("\"{0}\" has no sign; write +{0} or -{0} for a feature, or put it first if it is a baseline")]
    NoSign(String),
    /// A feature is named twice.
    #[error("{0} is named twice, keep one")]
    Twice(&'static str),
    /// The feature can't be removed, because every 64-bit guest needs it.
    #[error("{0} can't be removed: a 64-bit guest needs it")]
    Essential(&'static str),
    /// An added feature depends on one that is removed.
    #[error("+{added} needs {needed}, which the list removes; keep one of them")]
    Conflict {
        /// The added feature.
        added: &'static str,
        /// The removed feature it depends on.
        needed: &'static str,
    },
}

/// The host lacks features that the policy requires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host's KVM lacks {}, which {policy} requires", names.join(", "))]
pub struct MissingFeatures {
    /// Names of the missing features.
    pub names: Vec<&'static str>,
    /// The policy that requires them.
    pub policy: Box<FeaturePolicy>,
}

impl FeaturePolicy {
    /// Parses `words`: first "host" or a baseline, which defaults to "host"; then `+feature`, which also adds
    /// the feature's dependencies, and `-feature`, which also removes its dependents.
    ///
    /// # Errors
    /// The index of the first wrong word, and what is wrong with it.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, FeaturePolicyError)> {
        let mut policy = Self::default();
        for (index, word) in words.into_iter().enumerate() {
            policy.take(index, word).map_err(|error| (index, error))?;
        }
        policy.added = with_needs(policy.changed(Sign::Plus));
        policy.removed = with_dependents(policy.changed(Sign::Minus));
        policy.check_conflicts()?;
        // A feature that the list names explicitly stays, even if it mirrors one that is removed.
        let mirrors = with_dependents(mirrors(&policy.removed));
        policy.removed.extend(mirrors.difference(&policy.added));
        Ok(policy)
    }

    fn take(&mut self, index: usize, word: &str) -> Result<(), FeaturePolicyError> {
        let (sign, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (Sign::Plus, name),
            (None, Some(name)) => (Sign::Minus, name),
            (None, None) if index == 0 => {
                self.baseline = baseline(word)?;
                return Ok(());
            }
            (None, None) => return Err(FeaturePolicyError::NoSign(word.to_owned())),
        };
        let feature = table::find(name).ok_or_else(|| FeaturePolicyError::UnknownFeature(name.to_owned()))?;
        if self.changes.iter().any(|change| change.feature == feature) {
            return Err(FeaturePolicyError::Twice(feature.name));
        }
        if sign == Sign::Minus && baseline::is_essential(feature) {
            return Err(FeaturePolicyError::Essential(feature.name));
        }
        self.changes.push(Change { index, sign, feature });
        Ok(())
    }

    fn changed(&self, sign: Sign) -> impl Iterator<Item = Feature> {
        self.changes.iter().filter(move |change| change.sign == sign).map(|change| change.feature)
    }

    /// Checks that no added feature depends on a removed one.
    fn check_conflicts(&self) -> Result<(), (usize, FeaturePolicyError)> {
        for &Change { index, feature, .. } in self.changes.iter().filter(|change| change.sign == Sign::Plus) {
            let all = with_needs([feature]);
            if let Some(needed) = self.changed(Sign::Minus).find(|removed| all.contains(removed)) {
                let error = FeaturePolicyError::Conflict { added: feature.name, needed: needed.name };
                return Err((index, error));
            }
        }
        Ok(())
    }

    /// The valid words without a sign: "host" and the baselines.
    pub fn baseline_names() -> Vec<&'static str> {
        [HOST].into_iter().chain(Baseline::ALL.map(Baseline::name)).collect()
    }

    /// The valid feature names.
    pub fn feature_names() -> Vec<&'static str> {
        table::all().map(|feature| feature.name).collect()
    }

    /// Whether the guest sees all of the host's features.
    pub fn is_host(&self) -> bool {
        self.baseline.is_none() && self.changes.is_empty()
    }

    /// Whether the policy hides the feature `name` even on hosts that have it.
    pub fn removes(&self, name: &str) -> bool {
        let (feature, baseline) = (table::find(name), self.baseline.map(Baseline::features));
        feature.is_some_and(|feature| {
            let is_left_out = baseline.is_some_and(|baseline| !baseline.contains(&feature));
            self.removed.contains(&feature) || is_left_out && !self.added.contains(&feature)
        })
    }

    /// Applies the policy to `entries`, which [`policy`](super::policy) made. The default policy returns them
    /// unchanged.
    ///
    /// Leaf 0xd, the linear address width, AMD's copies of leaf 1 and leaves that describe a feature are
    /// adjusted to the features. With a baseline, leaves that have neither features nor anything listed here
    /// are removed, so that two hosts differ at most in vendor (leaves 0 and 0x8000_0000), family, model and
    /// brand string (1, 0x8000_0001 to 0x8000_0004), topology, caches and TLBs (1, 2, 4, 0xb, 0x8000_0001,
    /// 0x8000_0005, 0x8000_0006, 0x8000_0008, 0x8000_001d, 0x8000_001e), physical address width
    /// (0x8000_0008), frequency (0x4000_0010), and the offsets of the AVX-512 and protection key state in an
    /// XSAVE area (0xd).
    ///
    /// # Errors
    /// The policy requires features that `entries` lack.
    pub fn restrict(
        &self,
        mut entries: Vec<kvm_cpuid_entry2>,
    ) -> Result<Vec<kvm_cpuid_entry2>, MissingFeatures> {
        if self.is_host() {
            return Ok(entries);
        }
        let kept = self.kept(&entries)?;
        let vendor = Vendor::of(&entries);
        match self.baseline {
            Some(_) => keep_only(&mut entries, &kept, vendor),
            None => remove(&mut entries, &self.removed),
        }
        let unknown =
            if self.baseline.is_some() { UnknownComponents::Removed } else { UnknownComponents::Kept };
        xsave::fit(&mut entries, |name| kept.contains(&named(name)), unknown);
        if !kept.contains(&named("la57")) {
            shorten_linear_addresses(&mut entries);
        }
        if vendor == Vendor::Amd {
            mask_amd_copies(&mut entries);
        }
        Ok(entries)
    }

    /// The features of `entries` that the policy keeps.
    fn kept(&self, entries: &[kvm_cpuid_entry2]) -> Result<BTreeSet<Feature>, MissingFeatures> {
        let host: BTreeSet<_> = table::all().filter(|feature| feature.is_in(entries)).collect();
        let start = self.baseline.map(Baseline::features);
        let asked: BTreeSet<_> = start.iter().flatten().chain(&self.added).copied().collect();
        let asked: BTreeSet<_> = asked.difference(&self.removed).copied().collect();
        let missing: Vec<_> = asked.difference(&host).map(|feature| feature.name).collect();
        if !missing.is_empty() {
            return Err(MissingFeatures { names: missing, policy: Box::new(self.clone()) });
        }
        Ok(if self.baseline.is_some() { asked } else { host.difference(&self.removed).copied().collect() })
    }
}

/// Bits of feature words that show what the guest's kernel has enabled or describe the topology: OSXSAVE, HTT, OSPKE, CmpLegacy and
/// TopologyExtensions.
const NOT_FEATURES: &[(u32, u32, Register, u32)] = &[
    (1, 0, Register::Ecx, 1 << 27),
    (1, 0, Register::Edx, 1 << 28),
    (7, 0, Register::Ecx, 1 << 4),
    (0x8000_0001, 0, Register::Ecx, 1 << 1 | 1 << 22),
];

/// The names of the features that are set in `entries`.
pub(super) fn named_in(entries: &[kvm_cpuid_entry2]) -> impl Iterator<Item = &'static str> {
    table::all().filter(|feature| feature.is_in(entries)).map(|feature| feature.name)
}

/// The feature bits without a name that are set in `entries`: leaf, sub-leaf, register and bit.
pub(super) fn unnamed_in(
    entries: &[kvm_cpuid_entry2],
) -> impl Iterator<Item = (u32, u32, &'static str, u32)> {
    let of_word = |word: table::Word| {
        let entry = entries.iter().find(|entry| word.is_in(entry));
        let set = entry.map_or(0, |entry| word.register.of(entry));
        let named: u32 = table::all().filter(|feature| feature.word == word).map(Feature::mask).sum();
        let others = NOT_FEATURES.iter().filter(|(function, index, register, _)| {
            (*function, *index, *register) == (word.function, word.index, word.register)
        });
        let left = set & !named & !others.map(|(.., mask)| mask).sum::<u32>();
        let bits = (0..32).filter(move |bit| left & 1 << bit != 0);
        bits.map(move |bit| (word.function, word.index, word.register.name(), bit))
    };
    table::words().flat_map(of_word)
}

/// Name of the default policy.
const HOST: &str = "host";

fn baseline(name: &str) -> Result<Option<Baseline>, FeaturePolicyError> {
    if name == HOST {
        return Ok(None);
    }
    let found = Baseline::ALL.into_iter().find(|baseline| baseline.name() == name);
    found.map(Some).ok_or_else(|| FeaturePolicyError::UnknownBaseline(name.to_owned()))
}

/// Removes the features in `removed` and the leaves that describe them.
fn remove(entries: &mut Vec<kvm_cpuid_entry2>, removed: &BTreeSet<Feature>) {
    for feature in removed {
        let word = feature.word;
        for entry in entries.iter_mut().filter(|entry| word.is_in(entry)) {
            *word.register.of_mut(entry) &= !feature.mask();
        }
    }
    let is_gone =
        |leaf: u32| DETAILS.iter().any(|(name, details)| *details == leaf && removed.contains(&named(name)));
    entries.retain(|entry| !is_gone(entry.function));
}

/// Removes everything except `kept` and what [`FeaturePolicy::restrict`] lists.
fn keep_only(entries: &mut Vec<kvm_cpuid_entry2>, kept: &BTreeSet<Feature>, vendor: Vendor) {
    entries.retain(|entry| match entry.function {
        7 => entry.index == 0,
        0..=2 | 4 | 6 | 0xb | LAST_LEAF | 0x4000_0000 | 0x4000_0001 | 0x4000_0010 => true,
        0x8000_0000..=0x8000_0008 => true,
        topology::AMD_CACHES | topology::AMD_TOPOLOGY => vendor == Vendor::Amd,
        _ => false,
    });
    for entry in entries.iter_mut() {
        let word = |register| features_of(entry, register, kept);
        let (eax, ebx, ecx, edx) =
            (word(Register::Eax), word(Register::Ebx), word(Register::Ecx), word(Register::Edx));
        match entry.function {
            0 => entry.eax = LAST_LEAF,
            // EBX bits 7:0 are the brand index of old processors.
            1 => {
                entry.ebx &= !0xff;
                (entry.ecx, entry.edx) = (ecx, edx | entry.edx & topology::HTT);
            }
            6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, 0, 0, 0),
            // EAX is the last sub-leaf.
            7 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, ebx, ecx, edx),
            LAST_LEAF if entry.index == 1 => entry.eax = eax,
            0x4000_0001 => {
                entry.eax = eax | entry.eax & MSI_EXT_DEST_ID;
                (entry.ebx, entry.ecx, entry.edx) = (0, 0, 0);
            }
            0x8000_0000 if vendor == Vendor::Amd => entry.eax = topology::AMD_TOPOLOGY,
            0x8000_0000 => entry.eax = 0x8000_0008,
            0x8000_0001 => {
                let grouping = topology::CMP_LEGACY | topology::TOPOEXT;
                (entry.ecx, entry.edx) = (ecx | entry.ecx & grouping, edx);
            }
            0x8000_0007 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, ebx, 0, edx),
            // EAX has the address widths, ECX AMD's topology.
            0x8000_0008 => (entry.ebx, entry.edx) = (ebx, 0),
            _ => {}
        }
    }
}

/// The bits of `kept` in a register of `entry`.
fn features_of(entry: &kvm_cpuid_entry2, register: Register, kept: &BTreeSet<Feature>) -> u32 {
    let here = kept.iter().filter(|feature| feature.word.is_in(entry) && feature.word.register == register);
    here.fold(0, |bits, feature| bits | feature.mask())
}

fn shorten_linear_addresses(entries: &mut [kvm_cpuid_entry2]) {
    if let Some(entry) = leaves::find(entries, 0x8000_0008)
        && entry.eax & LINEAR_BITS > LINEAR_48
    {
        entry.eax = entry.eax & !LINEAR_BITS | LINEAR_48;
    }
}

/// Clears bits in AMD's copy of leaf 1 that leaf 1 itself lacks.
fn mask_amd_copies(entries: &mut [kvm_cpuid_entry2]) {
    let Some(originals) = leaves::find(entries, 1).map(|entry| entry.edx) else { return };
    if let Some(entry) = leaves::find(entries, 0x8000_0001) {
        entry.edx &= originals | !AMD_COPIES;
    }
}

/// Displays the policy as written: `host`, `x86-64-v2 +aes -popcnt`.
impl fmt::Display for FeaturePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.baseline.map_or(HOST, Baseline::name))?;
        self.changes.iter().try_for_each(|change| {
            let sign = if change.sign == Sign::Plus { '+' } else { '-' };
            write!(f, " {sign}{}", change.feature.name)
        })
    }
}

#[cfg(test)]
mod tests;
