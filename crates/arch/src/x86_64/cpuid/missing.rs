//! What a host lacks of a guest's processor.

use std::fmt;

use kvm_bindings::kvm_cpuid_entry2;

use super::features::{named_in, unnamed_in};

/// Leaf of the XSAVE area: its sub-leaf 0 lists the components, those from 2 on have the size and offset of one.
const XSAVE: u32 = 0xd;

/// Something of a guest's processor that a host lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A feature, by its name in `cpus.features`.
    Feature(&'static str),
    /// A feature without a name.
    Bit {
        /// The CPUID leaf.
        function: u32,
        /// The sub-leaf.
        index: u32,
        /// The register.
        register: &'static str,
        /// The bit in it.
        bit: u32,
    },
    /// A component of the XSAVE area.
    Component(u32),
    /// A component of the XSAVE area has another size or place.
    Layout(u32),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(name) => f.write_str(name),
            Self::Bit { function, index, register, bit } => {
                write!(f, "CPUID leaf {function:#x}.{index} {register} bit {bit}")
            }
            Self::Component(number) => write!(f, "XSAVE component {number}"),
            Self::Layout(number) => write!(f, "the place of XSAVE component {number}"),
        }
    }
}

/// What `host` lacks of `guest`. `guest` is the CPUID that a guest was told, and `host` what a guest of the same place would be told
/// there by default. Numbers, such as the topology, caches and the brand string, aren't compared.
pub fn missing(guest: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Vec<Missing> {
    let offered: Vec<_> = named_in(host).collect();
    let names = named_in(guest).filter(|name| !offered.contains(name)).map(Missing::Feature);
    let has_bit = unnamed_in(host).collect::<Vec<_>>();
    let bits = unnamed_in(guest)
        .filter(|bit| !has_bit.contains(bit))
        .map(|(function, index, register, bit)| Missing::Bit { function, index, register, bit });
    names.chain(bits).chain(components(guest, host)).collect()
}

fn components(guest: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Vec<Missing> {
    let leaf = |entries: &[kvm_cpuid_entry2], index| {
        entries.iter().find(|entry| (entry.function, entry.index) == (XSAVE, index)).copied()
    };
    let enabled =
        |entries| leaf(entries, 0).map_or(0, |entry| u64::from(entry.eax) | u64::from(entry.edx) << 32);
    let (of_guest, of_host) = (enabled(guest), enabled(host));
    (0..64)
        .filter(|number| of_guest & 1 << number != 0)
        .filter_map(|number| {
            if of_host & 1 << number == 0 {
                return Some(Missing::Component(number));
            }
            // The first two are the legacy area, which is the same everywhere.
            let place = |entries| leaf(entries, number).map(|entry| (entry.eax, entry.ebx));
            (number >= 2 && place(guest) != place(host)).then_some(Missing::Layout(number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    fn guest() -> Vec<kvm_cpuid_entry2> {
        vec![
            kvm_cpuid_entry2 { ecx: 1 << 20 | 1 << 27 | 1 << 31, edx: 1, ..entry(1, 0) },
            kvm_cpuid_entry2 { ebx: 1 << 5, ..entry(7, 0) },
            kvm_cpuid_entry2 { eax: 0b111, ..entry(XSAVE, 0) },
            kvm_cpuid_entry2 { eax: 256, ebx: 576, ..entry(XSAVE, 2) },
        ]
    }

    fn missing_in(change: impl FnOnce(&mut Vec<kvm_cpuid_entry2>)) -> Vec<String> {
        let mut host = guest();
        change(&mut host);
        missing(&guest(), &host).iter().map(Missing::to_string).collect()
    }

    #[test]
    fn host_with_all_of_it_and_more_lacks_nothing() {
        assert!(missing_in(|_| {}).is_empty());
        assert!(missing_in(|host| host[1].ebx |= 1 << 16).is_empty());
    }

    #[test]
    fn features_that_a_host_lacks_are_named() {
        assert_eq!(missing_in(|host| host[0].ecx &= !(1 << 20)), ["sse4_2"]);
        assert_eq!(missing_in(|host| _ = host.remove(1)), ["avx2"]);
    }

    /// OSXSAVE shows what the guest's kernel has enabled.
    #[test]
    fn what_the_guest_has_enabled_is_no_feature_of_the_host() {
        assert!(missing_in(|host| host[0].ecx &= !(1 << 27)).is_empty());
    }

    #[test]
    fn features_without_a_name_are_shown_as_bits() {
        let mut with = guest();
        with.push(kvm_cpuid_entry2 { edx: 1 << 31, ..entry(7, 1) });
        let shown: Vec<_> = missing(&with, &guest()).iter().map(Missing::to_string).collect();
        assert_eq!(shown, ["CPUID leaf 0x7.1 EDX bit 31"]);
    }

    #[test]
    fn xsave_areas_that_differ_are_refused() {
        assert_eq!(missing_in(|host| host[2].eax = 0b011), ["XSAVE component 2"]);
        assert_eq!(missing_in(|host| host[3].ebx = 832), ["the place of XSAVE component 2"]);
    }
}
