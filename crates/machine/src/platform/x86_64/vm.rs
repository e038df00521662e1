//! Creates the VM.

use vmm_kvm::{Kvm, ReservedPages, Vm};

use crate::{Error, Plan};

/// Creates the VM with KVM's reserved pages and, unless the config disables them, its interrupt controllers and timer.
pub(crate) fn create_vm(plan: &Plan, kvm: &Kvm) -> Result<Vm, Error> {
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    if plan.irqchip {
        vm.create_irqchip_and_pit()?;
    }
    if plan.topology.needs_x2apic() {
        vm.enable_x2apic_ids()?;
    }
    Ok(vm)
}
