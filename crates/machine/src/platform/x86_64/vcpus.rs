//! Creates the vCPUs in their initial state.

use vmm_arch::boot;
use vmm_arch::cpuid::{self, Place};
use vmm_kvm::kvm_bindings::kvm_sregs;
use vmm_kvm::{Kvm, KvmVcpu, VcpuState, Vm};

use super::host_cpu::HostCpu;
use super::host_cpu_error::HostCpuError;
use crate::{Error, Plan};

/// Creates all vCPUs, each in its initial state.
pub(crate) fn create_vcpus(
    plan: &Plan,
    (kvm, HostCpu { brand }): (&Kvm, HostCpu),
    vm: &Vm,
) -> Result<Vec<KvmVcpu>, Error> {
    let supported = kvm.supported_cpuid()?;
    let tsc_deadline = kvm.has_tsc_deadline();
    (0..plan.topology.count())
        .map(|index| {
            let place = Place { index, topology: plan.topology };
            // KVM uses a vCPU's id as its APIC id.
            let vcpu = vm.create_vcpu(place.apic_id())?;
            // No MSRs: those that aren't set below keep KVM's values. Setting the TSC would make the vCPUs' TSCs differ.
            let mut state = vcpu.state(&[])?;
            let host = cpuid::Host { tsc_deadline, tsc_khz: state.tsc_khz, brand };
            let shown = plan.features.restrict(cpuid::policy(&supported, place, host));
            state.cpuid = shown.map_err(HostCpuError::Features)?;
            prepare_start(&mut state, plan, place);
            vcpu.set_state(&state)?;
            if index == 0 {
                check_mode(&state.sregs, &vcpu.sregs()?)?;
            }
            Ok(vcpu)
        })
        .collect()
}

/// Creates all vCPUs as KVM has them, for states of a snapshot.
pub(crate) fn bare_vcpus(plan: &Plan, vm: &Vm) -> Result<Vec<KvmVcpu>, Error> {
    let place = |index| Place { index, topology: plan.topology };
    Ok((0..plan.topology.count())
        .map(|index| vm.create_vcpu(place(index).apic_id()))
        .collect::<Result<_, _>>()?)
}

/// Checks that this host's processor has everything that the guests of `states` were told of.
pub(crate) fn check_cpu(
    plan: &Plan,
    (kvm, HostCpu { brand }): (&Kvm, HostCpu),
    states: &[VcpuState],
) -> Result<(), Error> {
    let supported = kvm.supported_cpuid()?;
    for (index, state) in (0..).zip(states) {
        let place = Place { index, topology: plan.topology };
        let host = cpuid::Host { tsc_deadline: kvm.has_tsc_deadline(), tsc_khz: state.tsc_khz, brand };
        let missing = cpuid::missing(&state.cpuid, &cpuid::policy(&supported, place, host));
        if !missing.is_empty() {
            return Err(HostCpuError::Restore(missing).into());
        }
    }
    Ok(())
}

/// Changes the state of a new vCPU to its initial one. The first vCPU starts at the guest's entry; the others wait for INIT and
/// SIPI, as KVM creates them.
fn prepare_start(state: &mut VcpuState, plan: &Plan, place: Place) {
    state.init_as_firmware();
    if let Some(lapic) = &mut state.lapic
        && plan.tables.acpi.is_some()
        && plan.topology.needs_x2apic()
    {
        boot::enable_x2apic(&mut state.sregs, lapic, place.apic_id());
    }
    if place.index == 0 {
        plan.boot.apply_to(&mut state.regs, &mut state.sregs);
    }
}

/// Checks that KVM has accepted the processor mode. A software KVM may ignore bits without an error.
fn check_mode(requested: &kvm_sregs, actual: &kvm_sregs) -> Result<(), HostCpuError> {
    let registers = [
        ("CR0", requested.cr0, actual.cr0),
        ("CR4", requested.cr4, actual.cr4),
        ("EFER", requested.efer, actual.efer),
    ];
    match registers.into_iter().find(|(_, requested, actual)| requested & !actual != 0) {
        Some((register, requested, actual)) => Err(HostCpuError::Mode { register, requested, actual }),
        None => Ok(()),
    }
}
