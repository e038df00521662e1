//! A PC's two device buses: I/O ports and MMIO.

use vmm_bus::Bus;
use vmm_pci::Cam;
use vmm_vcpu::BusHandler;

use super::ports::PCI_REGISTERS;

/// The buses of one machine.
#[derive(Debug)]
pub(crate) struct Buses {
    /// I/O ports 0 to 0xffff.
    ports: Bus,
    /// Guest-physical addresses outside RAM.
    mmio: Bus,
}

impl Buses {
    pub(crate) fn new() -> Self {
        Self { ports: Bus::new(), mmio: Bus::new() }
    }

    /// The bus of legacy devices' registers.
    pub(crate) fn legacy(&self) -> &Bus {
        &self.ports
    }

    /// The bus of virtio devices' registers.
    pub(crate) fn mmio(&self) -> &Bus {
        &self.mmio
    }

    /// Adds the ports of PCI configuration mechanism #1.
    pub(crate) fn insert_pci_ports(&self, cam: Cam) -> Result<(), vmm_bus::Error> {
        self.ports.insert(PCI_REGISTERS.1, cam)
    }

    /// The exit handler of one vCPU. All devices must be on their buses.
    pub(crate) fn handler(&self) -> BusHandler {
        BusHandler::new(self.ports.view(), self.mmio.view())
    }
}
