//! The vCPUs' APIC ids.

use vmm_arch::topology::{FIRST_X2APIC_ID, Topology};
use vmm_kvm::Kvm;

use super::host_cpu_error::HostCpuError;
use crate::ranges::Ranges;

/// Checks that the host's KVM supports APIC ids as high as the vCPUs'.
pub(crate) fn check_vcpu_ids(topology: Topology, kvm: &Kvm) -> Result<(), HostCpuError> {
    let limit = if kvm.has_x2apic_ids() { kvm.max_vcpu_id() } else { FIRST_X2APIC_ID as usize };
    match topology.last_apic_id() {
        last if last as usize >= limit => {
            Err(HostCpuError::ApicIds { topology, last, max: limit as u32 - 1 })
        }
        _ => Ok(()),
    }
}

/// The APIC ids as text, if they differ from the vCPUs' indices.
pub(crate) fn shown_vcpu_ids(topology: Topology) -> Option<String> {
    let count = topology.count();
    let ids = (0..count).map(|index| topology.apic_id(index) as usize);
    (topology.last_apic_id() != count - 1).then(|| format!("APIC ids {}", Ranges::of(ids)))
}
