//! The vCPUs, each in the state of its start.

use vmm_arch::cpuid::{self, Place};
use vmm_arch::{boot, msr};
use vmm_kvm::kvm_bindings::kvm_sregs;
use vmm_kvm::{Kvm, KvmVcpu, VcpuState, Vm};

use super::host_cpu;
use super::host_cpu_error::HostCpuError;
use crate::{Error, Plan};

/// Creates all vCPUs, each with the state of its start.
pub(crate) fn create_vcpus(plan: &Plan, kvm: &Kvm, vm: &Vm) -> Result<Vec<KvmVcpu>, Error> {
    let supported = kvm.supported_cpuid()?;
    let tsc_deadline = kvm.has_tsc_deadline();
    let brand = host_cpu::brand();
    (0..plan.topology.count())
        .map(|index| {
            let place = Place { index, topology: plan.topology };
            // KVM takes a vCPU's id for its APIC id.
            let vcpu = vm.create_vcpu(place.apic_id())?;
            // No model-specific registers: those that aren't set below keep the values that KVM gave them. The TSC must, or the
            // vCPUs' wouldn't be equal.
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

/// Changes the state of a new vCPU to the one that it starts with. The first starts at the kernel's entry; the others wait for it to
/// start them, as KVM leaves them.
fn prepare_start(state: &mut VcpuState, plan: &Plan, place: Place) {
    state.msrs = msr::boot();
    boot::init_fpu(&mut state.xsave);
    if let Some(lapic) = &mut state.lapic {
        boot::wire_local_apic(lapic);
        if plan.tables.acpi.is_some() && plan.topology.needs_x2apic() {
            boot::enable_x2apic(&mut state.sregs, lapic, place.apic_id());
        }
    }
    if place.index == 0 {
        plan.boot.apply_to(&mut state.regs, &mut state.sregs);
    }
}

/// Whether KVM took the mode of the processor that it was given. A software KVM may not, and says nothing.
fn check_mode(asked: &kvm_sregs, taken: &kvm_sregs) -> Result<(), HostCpuError> {
    let registers =
        [("CR0", asked.cr0, taken.cr0), ("CR4", asked.cr4, taken.cr4), ("EFER", asked.efer, taken.efer)];
    match registers.into_iter().find(|(_, asked, taken)| asked & !taken != 0) {
        Some((register, asked, taken)) => Err(HostCpuError::Mode { register, asked, taken }),
        None => Ok(()),
    }
}
