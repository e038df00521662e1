//! Where KVM sends interrupts: the inputs of the interrupt controllers that it emulates, and messages.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};

use crate::error::Named;
use crate::{Error, Vm};

/// The first GSI that isn't a pin of the IO-APIC.
pub const FIRST_MSI_GSI: u32 = IOAPIC_PINS;

const IOAPIC_PINS: u32 = 24;
/// Inputs of the two 8259s.
const PIC_INPUTS: u32 = 16;
const PIC_LEN: u32 = 8;

/// What an interrupt at a GSI sends: a write of `data` to `address`, which is a local APIC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiRoute {
    /// The GSI, [`FIRST_MSI_GSI`] or more.
    pub gsi: u32,
    /// Where it is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

impl Vm {
    /// Sets all messages that GSIs send. GSIs below [`FIRST_MSI_GSI`] stay the pins of the interrupt controllers, as KVM has set them
    /// up. An irqfd at a GSI without a message is written in vain.
    ///
    /// # Errors
    /// There are no in-kernel interrupt controllers, or more routes than KVM has (4096 with the pins).
    pub fn set_msi_routes(&self, routes: &[MsiRoute]) -> Result<(), Error> {
        let entries: Vec<_> = pins().chain(routes.iter().map(message)).collect();
        let table = KvmIrqRouting::from_entries(&entries);
        let table = table.map_err(|_| kvm_ioctls::Error::new(libc::ENOSPC)).named("KVM_SET_GSI_ROUTING")?;
        self.fd.set_gsi_routing(&table).named("KVM_SET_GSI_ROUTING")
    }
}

/// The routes of a new VM with interrupt controllers (Linux arch/x86/kvm, `default_routing`).
fn pins() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pin = |gsi, irqchip, pin| kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 { irqchip: kvm_irq_routing_irqchip { irqchip, pin } },
        ..kvm_irq_routing_entry::default()
    };
    let pics = (0..PIC_INPUTS).map(move |gsi| match gsi {
        0..PIC_LEN => pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        _ => pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PIC_LEN),
    });
    pics.chain((0..IOAPIC_PINS).map(move |gsi| pin(gsi, KVM_IRQCHIP_IOAPIC, gsi)))
}

fn message(route: &MsiRoute) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: route.address as u32,
        address_hi: (route.address >> 32) as u32,
        data: route.data,
        ..kvm_irq_routing_msi::default()
    };
    kvm_irq_routing_entry {
        gsi: route.gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..kvm_irq_routing_entry::default()
    }
}
