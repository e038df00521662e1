//! What all leaves share: the vCPU's place, the vendor, and finding and changing entries.

use kvm_bindings::kvm_cpuid_entry2;

use crate::topology::Topology;

/// The first of KVM's own leaves, whose EAX is the last of them (KVM cpuid.rst).
pub(super) const KVM_LEAVES: u32 = 0x4000_0000;

/// Leaf 0x4000_0001 EAX bit 15, KVM_FEATURE_MSI_EXT_DEST_ID: interrupts can address APIC ids of 15 bits.
/// Without it Linux doesn't start processors with an id above 255 (arch/x86/kernel/apic/apic.c,
/// try_to_enable_x2apic).
pub(super) const MSI_EXT_DEST_ID: u32 = 1 << 15;

/// A vCPU's place in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the vCPU, from 0.
    pub index: u32,
    /// The topology of all vCPUs.
    pub topology: Topology,
}

impl Place {
    /// The vCPU's APIC id.
    pub fn apic_id(&self) -> u32 {
        self.topology.apic_id(self.index)
    }
}

/// The processor's vendor, as far as leaves depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    /// AMD, or Hygon, which uses AMD's cores.
    Amd,
    Other,
}

impl Vendor {
    /// Reads the vendor string in EBX, EDX and ECX of leaf 0.
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

/// Inserts `leaf`, replacing entries for the same leaf.
pub(super) fn replace(entries: &mut Vec<kvm_cpuid_entry2>, leaf: kvm_cpuid_entry2) {
    entries.retain(|entry| entry.function != leaf.function);
    entries.push(leaf);
}

/// The first entry of leaf `function`.
pub(super) fn find(entries: &mut [kvm_cpuid_entry2], function: u32) -> Option<&mut kvm_cpuid_entry2> {
    entries.iter_mut().find(|entry| entry.function == function)
}
