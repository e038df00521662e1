//! The virtio devices' PCI bus: its addresses, its interrupts, and the moves of its functions' registers.

use std::ops::Range;
use std::sync::Arc;

use vmm_arch::layout;
use vmm_bus::Bus;
use vmm_kvm::{Vm, WriteAddress};
use vmm_pci::{BarMove, BarMover, ECAM_LEN, HostBridge, RootBus};
use vmm_virtio::{PCI_BAR_LEN, PCI_NOTIFY, PCI_NOTIFY_STRIDE, PciTransport};

use crate::Error;
use crate::platform::Buses;

/// Addresses of the memory-mapped configuration spaces.
pub(crate) fn ecam() -> Range<u64> {
    layout::PCI_ECAM..layout::PCI_ECAM + ECAM_LEN
}

/// Addresses of the BAR of the function in `slot`, 1 or more, before the guest moves it.
pub(crate) fn bar(slot: u8) -> Range<u64> {
    let first = layout::PCI_WINDOW.start.next_multiple_of(PCI_BAR_LEN);
    let start = first + u64::from(slot - 1) * PCI_BAR_LEN;
    start..start + PCI_BAR_LEN
}

/// Connects a bus with these functions, by slot, to `buses`. It reads as empty once the result is dropped.
pub(crate) fn connect(
    functions: &[(u8, Arc<PciTransport>)],
    vm: &Arc<Vm>,
    buses: &Buses,
) -> Result<Arc<RootBus>, Error> {
    let mover = Mover { functions: functions.to_vec(), vm: Arc::clone(vm), mmio: buses.mmio().clone() };
    let mut bus = RootBus::new(Box::new(mover));
    bus.insert(0, Arc::new(HostBridge::new()));
    for (slot, function) in functions {
        bus.insert((*slot).into(), Arc::clone(function) as _);
    }
    let bus = Arc::new(bus);
    buses.insert_pci_ports(bus.cam())?;
    buses.mmio().insert(ecam(), bus.ecam())?;
    Ok(bus)
}

/// Moves registers on the MMIO bus, and the ioeventfds of their notifications.
struct Mover {
    functions: Vec<(u8, Arc<PciTransport>)>,
    vm: Arc<Vm>,
    mmio: Bus,
}

impl BarMover for Mover {
    fn move_bar(&self, slot: usize, wanted: BarMove) -> bool {
        let Some((_, function)) = self.functions.iter().find(|(at, _)| usize::from(*at) == slot) else {
            return false;
        };
        // An address that overlaps the old one is refused: Linux and others switch decoding off before they move a BAR.
        if let Some(to) = wanted.to
            && self.mmio.insert(to..to + PCI_BAR_LEN, Arc::clone(function)).is_err()
        {
            return false;
        }
        if let Some(from) = wanted.from {
            for (queue, kick) in function.control().kicks().iter().enumerate() {
                // It fails for one that couldn't be connected.
                let _ = self.vm.disconnect_write(kick, notify(from, queue), None);
            }
            self.mmio.remove(from);
        }
        if let Some(to) = wanted.to {
            for (queue, kick) in function.control().kicks().iter().enumerate() {
                // If KVM refuses, notifications exit to the registers, which kick the queue as well.
                let _ = self.vm.connect_write(kick, notify(to, queue), None);
            }
        }
        true
    }
}

fn notify(bar: u64, queue: usize) -> WriteAddress {
    WriteAddress::Mmio(bar + PCI_NOTIFY + queue as u64 * PCI_NOTIFY_STRIDE)
}
