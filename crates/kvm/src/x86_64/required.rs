//! Capabilities required for a virtual PC.

use kvm_bindings::{
    KVM_CAP_EXT_CPUID, KVM_CAP_IRQCHIP, KVM_CAP_PIT2, KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_SET_TSS_ADDR,
};

use crate::capability::{Capability, capability};

/// Capabilities that every virtual PC requires.
pub(crate) const REQUIRED: [Capability; 5] = [
    capability!(KVM_CAP_IRQCHIP),
    capability!(KVM_CAP_PIT2),
    capability!(KVM_CAP_SET_TSS_ADDR),
    capability!(KVM_CAP_SET_IDENTITY_MAP_ADDR),
    capability!(KVM_CAP_EXT_CPUID),
];
