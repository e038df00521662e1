//! Everything that depends on the processor's architecture: the guest's initial state, its firmware tables, and what KVM
//! emulates. Another architecture would be another module that exports the same names.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    Buses, FeaturePolicy, HostCpu, LEGACY_SPACE, PCI_REGISTERS, bare_vcpus, check_cpu, check_registers,
    check_vcpu_ids, crash_note, create_irqchip, create_vcpus, create_vm, describe_host, emulated_ranges,
    expected_registers, feature_policy, shown_step, shown_vcpu_ids,
};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{FirmwareTables, GuestPlan, HostCpuError, RegisterConflict};
