//! x86_64: the machine is a PC.

mod acpi;
mod buses;
mod emulated;
mod features;
mod firmware_tables;
mod guest;
mod host_cpu;
mod host_cpu_error;
mod mptable;
mod ports;
mod registers;
mod vcpu_ids;
mod vcpus;
mod vm;

pub(crate) use buses::Buses;
pub(crate) use emulated::emulated_ranges;
pub(crate) use features::policy as feature_policy;
pub use firmware_tables::FirmwareTables;
pub use guest::GuestPlan;
pub(crate) use host_cpu::{HostCpu, describe_host};
pub use host_cpu_error::HostCpuError;
pub use ports::RegisterConflict;
pub(crate) use ports::{LEGACY_SPACE, PCI_REGISTERS, check_registers};
pub(crate) use registers::{crash_note, expected_registers, shown_step};
pub(crate) use vcpu_ids::{check_vcpu_ids, shown_vcpu_ids};
pub(crate) use vcpus::{bare_vcpus, check_cpu, create_vcpus};
pub(crate) use vm::{create_irqchip, create_vm};
pub(crate) use vmm_arch::cpuid::FeaturePolicy;
