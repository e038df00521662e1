//! What the leaves share: which vCPU and which vendor they are for, and how they are found and changed.

use kvm_bindings::kvm_cpuid_entry2;

use crate::topology::Topology;

/// KVM's own leaves: the first, which says how many there are (KVM cpuid.rst).
pub(super) const KVM_LEAVES: u32 = 0x4000_0000;

/// Leaf 0x4000_0001 EAX bit 15, KVM_FEATURE_MSI_EXT_DEST_ID: interrupts reach APIC ids of 15 bits. Without it Linux starts no
/// processor with an id above 255 (arch/x86/kernel/apic/apic.c, try_to_enable_x2apic).
pub(super) const MSI_EXT_DEST_ID: u32 = 1 << 15;

/// One vCPU's place among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the vCPU from 0.
    pub index: u32,
    /// How all of them are grouped.
    pub topology: Topology,
}

impl Place {
    /// Its APIC id.
    pub fn apic_id(&self) -> u32 {
        self.topology.apic_id(self.index)
    }
}

/// Who made the processor, as far as its leaves differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    /// AMD, or Hygon with AMD's cores.
    Amd,
    Other,
}

impl Vendor {
    /// Leaf 0: the name in EBX, EDX and ECX.
    pub(super) fn of(entries: &[kvm_cpuid_entry2]) -> Self {
        let name = |e: &kvm_cpuid_entry2| [e.ebx, e.edx, e.ecx].map(u32::to_le_bytes).concat();
        match entries.iter().find(|e| e.function == 0).map(name).as_deref() {
            Some(b"GenuineIntel") => Self::Intel,
            Some(b"AuthenticAMD" | b"HygonGenuine") => Self::Amd,
            _ => Self::Other,
        }
    }
}

pub(super) fn set(register: &mut u32, bits: u32, on: bool) {
    *register = if on { *register | bits } else { *register & !bits };
}

/// Puts `leaf` in the place of the one with its number, if there is any.
pub(super) fn replace(entries: &mut Vec<kvm_cpuid_entry2>, leaf: kvm_cpuid_entry2) {
    entries.retain(|entry| entry.function != leaf.function);
    entries.push(leaf);
}

/// The leaf `function`, if it's there.
pub(super) fn find(entries: &mut [kvm_cpuid_entry2], function: u32) -> Option<&mut kvm_cpuid_entry2> {
    entries.iter_mut().find(|entry| entry.function == function)
}
