//! The brand string (model name), in leaves 0x8000_0002 to 0x8000_0004.
//!
//! KVM_GET_SUPPORTED_CPUID omits it. Programs display it, and some base decisions on it.

use kvm_bindings::kvm_cpuid_entry2;

use super::leaves::{find, replace};

/// The first extended leaf, whose EAX is the last extended leaf.
const EXTENDED: u32 = 0x8000_0000;
/// The brand string's leaves, 16 bytes each in EAX, EBX, ECX and EDX (Intel SDM volume 2, CPUID).
const LEAVES: [u32; 3] = [0x8000_0002, 0x8000_0003, 0x8000_0004];

/// A brand string: ASCII, padded with zeros, always terminated by a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brand([u8; 48]);

impl Brand {
    /// Takes up to 47 bytes of `name`. Everything but printable ASCII becomes a question mark.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 48];
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' };
        for (byte, char) in bytes[..47].iter_mut().zip(name.chars()) {
            *byte = printable(char);
        }
        Self(bytes)
    }
}

/// Sets the brand string leaves, if there are extended leaves.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, brand: Brand) {
    let Some(first) = find(entries, EXTENDED) else { return };
    first.eax = first.eax.max(LEAVES[2]);
    for (function, bytes) in LEAVES.into_iter().zip(brand.0.chunks_exact(16)) {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (eax, ebx, ecx, edx) = (word(0), word(4), word(8), word(12));
        replace(entries, kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HOST, entry, get, place};
    use super::super::{Host, policy};
    use super::*;
    use crate::topology::Topology;

    fn named(supported: &[kvm_cpuid_entry2], name: &str) -> Vec<kvm_cpuid_entry2> {
        let host = Host { brand: Some(Brand::new(name)), ..HOST };
        policy(supported, place(0, Topology::one_socket(1)), host)
    }

    /// Assembles the string as a guest does.
    fn read(entries: &[kvm_cpuid_entry2]) -> Vec<u8> {
        LEAVES
            .iter()
            .map(|function| get(entries, *function, 0))
            .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
            .flat_map(u32::to_le_bytes)
            .collect()
    }

    #[test]
    fn brand_replaces_kvms_and_the_last_extended_leaf_is_far_enough() {
        let first = kvm_cpuid_entry2 { eax: 0x8000_0001, ..entry(EXTENDED, 0) };
        let kvms = kvm_cpuid_entry2 { eax: 7, ..entry(0x8000_0002, 0) };
        let got = named(&[first, kvms], "AMD EPYC 7763 64-Core Processor");
        assert_eq!(read(&got), b"AMD EPYC 7763 64-Core Processor\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(get(&got, EXTENDED, 0).eax, 0x8000_0004);
        assert_eq!(got.iter().filter(|leaf| leaf.function == 0x8000_0002).count(), 1);
    }

    #[test]
    fn brand_leaves_later_extended_leaves() {
        let first = kvm_cpuid_entry2 { eax: 0x8000_001f, ..entry(EXTENDED, 0) };
        assert_eq!(get(&named(&[first], "x"), EXTENDED, 0).eax, 0x8000_001f);
    }

    #[test]
    fn brand_too_long_ends_with_a_zero_all_the_same() {
        let first = entry(EXTENDED, 0);
        assert_eq!(read(&named(&[first], &"x".repeat(60))), [[b'x'; 47].as_slice(), b"\0"].concat());
    }

    #[test]
    fn brand_is_printable_ascii() {
        let got = read(&named(&[entry(EXTENDED, 0)], "i9\u{7f}\u{ae}\n"));
        assert_eq!(&got[..6], b"i9???\0");
    }

    #[test]
    fn brand_of_a_processor_without_extended_leaves_is_left_out() {
        assert_eq!(named(&[entry(7, 0)], "x"), [entry(7, 0)]);
    }
}
