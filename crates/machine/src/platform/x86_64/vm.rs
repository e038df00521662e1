//! Creates the VM.

use vmm_kvm::{Kvm, ReservedPages, Vm};

use crate::{Error, Plan};

/// Creates the VM with KVM's reserved pages.
pub(crate) fn create_vm(plan: &Plan, kvm: &Kvm) -> Result<Vm, Error> {
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    if plan.topology.needs_x2apic() {
        vm.enable_x2apic_ids()?;
    }
    Ok(vm)
}

/// Creates the interrupt controllers and the timer, unless the config disables them.
pub(crate) fn create_irqchip(plan: &Plan, vm: &Vm) -> Result<(), Error> {
    if plan.irqchip { Ok(vm.create_irqchip_and_pit()?) } else { Ok(()) }
}
