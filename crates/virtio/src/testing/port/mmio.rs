//! The MMIO transport: the vocabulary is its own.

use vmm_bus::{BusDevice, EventFd, IrqLine, Outcome};
use vmm_snapshot::StateError;

use crate::testing::Register;
use crate::testing::section::{from_bytes, to_bytes};
use crate::{Control, ControlParams, MMIO_LEN, MmioTransport, Notices, SaveError, VirtioDevice};

/// InterruptStatus: configuration change.
const CONFIGURATION_CHANGE: u32 = 2;

/// Bytes of the configuration space that an image has: more than any device of this workspace has.
const CONFIG_LEN: u64 = 0x80;

/// A device's registers in memory, and its interrupt line.
pub struct MmioPort {
    transport: MmioTransport,
    interrupt: EventFd,
}

impl MmioPort {
    pub(super) fn new(params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        let line = IrqLine::new().expect("a descriptor");
        let interrupt = line.event().try_clone().expect("a descriptor");
        let transport = MmioTransport::new(params, device, line);
        Self { transport: transport.expect("a thread and descriptors"), interrupt }
    }

    pub(super) fn read_register(&self, register: Register) -> u32 {
        let mut bytes = [0xff; 4];
        self.transport.read(register as u64, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write_register(&self, register: Register, value: u32) -> Outcome {
        self.transport.write(register as u64, &value.to_le_bytes())
    }

    pub(super) fn area(&self) -> &dyn BusDevice {
        &self.transport
    }

    pub(super) fn config(&self) -> (u64, u64) {
        let start = Register::Config as u64;
        (start, MMIO_LEN - start)
    }

    pub(super) fn control(&self) -> &Control {
        self.transport.control()
    }

    pub(super) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    pub(super) fn take_config_change(&self) -> bool {
        let cause = self.read_register(Register::InterruptStatus);
        let _ = self.write_register(Register::InterruptAck, cause);
        cause & CONFIGURATION_CHANGE != 0
    }

    pub(super) fn save(&self) -> Result<Vec<u8>, SaveError> {
        Ok(to_bytes(&self.transport.save()?))
    }

    pub(super) fn load(&self, section: &[u8]) -> Result<(), StateError> {
        self.transport.load(&from_bytes(section)?)
    }

    /// The page, with each value of the selectors.
    pub(super) fn image(&self, queues: u32) -> Vec<u8> {
        let mut image = Vec::new();
        let mut page = || {
            (0..Register::Config as u64 + CONFIG_LEN).step_by(4).for_each(|offset| {
                let mut bytes = [0xff; 4];
                self.transport.read(offset, &mut bytes);
                image.extend(bytes);
            });
        };
        // As they are.
        page();
        for select in 0..queues.max(2) {
            let _ = self.write_register(Register::QueueSel, select);
            let _ = self.write_register(Register::DeviceFeaturesSel, select);
            page();
        }
        image
    }

    pub(super) fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        self.transport.into_device()
    }
}
