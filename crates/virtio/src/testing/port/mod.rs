//! What lies between a driver and its device: the transport, the interrupt, and how a register of the driver's vocabulary is reached.

mod messages;
mod mmio;
mod pci;
mod probe;

use std::sync::Arc;

use vmm_bus::{BusDevice, EventFd, Outcome};
use vmm_snapshot::StateError;

use super::Register;
use crate::{Control, ControlParams, SaveError, VirtioDevice};
use mmio::MmioPort;
pub use pci::PciPort;

/// A device's registers, which several threads may access. Clones reach the same device.
#[derive(Clone)]
pub enum Port {
    /// Registers in memory.
    Mmio(Arc<MmioPort>),
    /// A PCI function.
    Pci(Arc<PciPort>),
}

impl Port {
    /// A device behind the MMIO transport.
    pub(super) fn mmio(params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        Self::Mmio(Arc::new(MmioPort::new(params, device)))
    }

    /// A device behind the PCI transport.
    pub(super) fn pci(params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        Self::Pci(Arc::new(PciPort::new(params, device)))
    }

    /// Another device behind a fresh transport of the same type, which no driver has touched.
    pub(super) fn unprobed(&self, params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        match self {
            Self::Mmio(_) => Self::mmio(params, device),
            Self::Pci(port) => Self::Pci(Arc::new(port.unprobed(params, device))),
        }
    }

    /// The section of the device's state.
    pub(super) fn save(&self) -> Result<Vec<u8>, SaveError> {
        match self {
            Self::Mmio(port) => port.save(),
            Self::Pci(port) => port.save(),
        }
    }

    /// Loads a section.
    pub(super) fn load(&self, section: &[u8]) -> Result<(), StateError> {
        match self {
            Self::Mmio(port) => port.load(section),
            Self::Pci(port) => port.load(section),
        }
    }

    /// The registers that can be read without a side effect.
    pub(super) fn image(&self, queues: u32) -> Vec<u8> {
        match self {
            Self::Mmio(port) => port.image(queues),
            Self::Pci(port) => port.image(queues),
        }
    }

    /// Reads a register.
    ///
    /// # Panics
    /// The transport has no such register.
    pub fn read(&self, register: Register) -> u32 {
        match self {
            Self::Mmio(port) => port.read_register(register),
            Self::Pci(port) => port.read_register(register),
        }
    }

    /// Writes a register: as many of the value's low bits as it has.
    ///
    /// # Panics
    /// The transport has no such register.
    pub fn write(&self, register: Register, value: u32) -> Outcome {
        match self {
            Self::Mmio(port) => port.write_register(register, value),
            Self::Pci(port) => port.write_register(register, value),
        }
    }

    /// The registers in memory: the MMIO transport's page, or the function's BAR.
    pub fn area(&self) -> &dyn BusDevice {
        match self {
            Self::Mmio(port) => port.area(),
            Self::Pci(port) => port.area(),
        }
    }

    /// Offset in the [`area`](Self::area) of the device's configuration, and its length.
    pub(super) fn config(&self) -> (u64, u64) {
        match self {
            Self::Mmio(port) => port.config(),
            Self::Pci(port) => port.config(),
        }
    }

    pub(super) fn control(&self) -> &Control {
        match self {
            Self::Mmio(port) => port.control(),
            Self::Pci(port) => port.control(),
        }
    }

    /// Written at each interrupt.
    pub(super) fn interrupt(&self) -> &EventFd {
        match self {
            Self::Mmio(port) => port.interrupt(),
            Self::Pci(port) => port.interrupt(),
        }
    }

    /// After an interrupt: whether the configuration, or DEVICE_NEEDS_RESET, has changed.
    pub(super) fn take_config_change(&self) -> bool {
        match self {
            Self::Mmio(port) => port.take_config_change(),
            Self::Pci(port) => port.take_config_change(),
        }
    }

    /// What a driver does before it touches the registers.
    pub(super) fn enable(&self) {
        if let Self::Pci(port) = self {
            port.enable();
        }
    }

    /// What a driver sets up after each reset, apart from queues.
    pub(super) fn set_up_interrupts(&self) {
        if let Self::Pci(port) = self {
            port.set_up_interrupts();
        }
    }

    /// Ends the machine.
    pub(super) fn power_off(self) -> Box<dyn VirtioDevice> {
        const ALONE: &str = "nobody else has a reference";
        let device = match self {
            Self::Mmio(port) => Arc::into_inner(port).expect(ALONE).into_device(),
            Self::Pci(port) => Arc::into_inner(port).expect(ALONE).into_device(),
        };
        let (device, _) = device.expect("its thread has not panicked");
        device
    }
}
