//! The MMIO transport (virtio 1.2 §4.2): the device's control side as memory-mapped registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_bus::{BusDevice, IrqLine, Outcome};

use crate::Interrupt;
use crate::control::{Control, ControlParams, Half, QueueField};
use crate::{Notices, StartError, VirtioDevice};

mod saved;
mod state;

pub use state::MmioState;

/// Length of registers and configuration space in bytes.
pub const MMIO_LEN: u64 = 0x1000;
/// Offset of QueueNotify, where the driver writes the queue's index as 32 bits.
pub const MMIO_NOTIFY: u64 = 0x50;

/// MagicValue: "virt".
const MAGIC: u32 = 0x7472_6976;
/// Version: non-legacy.
const VERSION: u32 = 2;
/// VendorID. There is no registry; Linux only prints it.
const VENDOR: u32 = u32::from_le_bytes(*b"vmm0");
/// InterruptStatus: chains were used.
const USED_BUFFER: u32 = 1;
/// InterruptStatus: the configuration has changed.
const CONFIGURATION_CHANGE: u32 = 2;
/// Offset of the configuration space.
const CONFIG: u64 = 0x100;
/// SHMLen and SHMBase of a non-existent shared memory region.
const NO_REGION: u32 = !0;

/// A virtio device with memory-mapped registers.
#[derive(Debug)]
pub struct MmioTransport {
    control: Control,
    interrupt: Arc<MmioInterrupt>,
    device_features_sel: AtomicU32,
    driver_features_sel: AtomicU32,
    queue_sel: AtomicU32,
}

/// InterruptStatus and the interrupt line.
#[derive(Debug)]
struct MmioInterrupt {
    status: AtomicU32,
    line: IrqLine,
}

impl MmioInterrupt {
    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // It fails only if 2^64 - 2 edges are pending.
        let _ = self.line.trigger();
    }
}

impl Interrupt for MmioInterrupt {
    fn queue(&self, _index: usize) {
        self.raise(USED_BUFFER);
    }

    fn config(&self) {
        self.raise(CONFIGURATION_CHANGE);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
    }
}

impl MmioTransport {
    /// Starts the thread of `device`, which raises `line`.
    ///
    /// # Errors
    /// The host is out of descriptors or threads.
    pub fn new(
        params: ControlParams,
        device: Box<dyn VirtioDevice>,
        line: IrqLine,
    ) -> Result<Self, StartError> {
        let interrupt = Arc::new(MmioInterrupt { status: AtomicU32::new(0), line });
        let control = Control::new(params, device, Arc::clone(&interrupt) as _)?;
        let [device_features_sel, driver_features_sel, queue_sel] = [0; 3].map(AtomicU32::new);
        Ok(Self { control, interrupt, device_features_sel, driver_features_sel, queue_sel })
    }

    /// [`Control::into_device`].
    pub fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        self.control.into_device()
    }

    /// The device's control side.
    pub fn control(&self) -> &Control {
        &self.control
    }

    fn read_register(&self, offset: u64) -> u32 {
        let control = &self.control;
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => control.id(),
            0x00c => VENDOR,
            0x010 => match load(&self.device_features_sel) {
                0 => control.offered() as u32,
                1 => (control.offered() >> 32) as u32,
                _ => 0,
            },
            0x034 => control.queue_max(load(&self.queue_sel)).into(),
            0x044 => control.queue_is_ready(load(&self.queue_sel)).into(),
            0x060 => load(&self.interrupt.status),
            0x070 => control.status().into(),
            0x0b0..0x0c0 => NO_REGION,
            0x0fc => control.config().generation(),
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) -> Outcome {
        let control = &self.control;
        let set_queue = |field| control.set_queue(load(&self.queue_sel), field);
        match offset {
            0x014 => store(&self.device_features_sel, value),
            0x020 => match load(&self.driver_features_sel) {
                0 => control.set_features(Half::Low(value)),
                1 => control.set_features(Half::High(value)),
                _ => {}
            },
            0x024 => store(&self.driver_features_sel, value),
            0x030 => store(&self.queue_sel, value),
            0x038 => set_queue(QueueField::Size(value)),
            0x044 => set_queue(QueueField::Ready(value & 1 != 0)),
            MMIO_NOTIFY => control.kick(value),
            0x064 => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
            }
            0x070 => return control.set_status(value as u8),
            0x080 => set_queue(QueueField::Descriptors(Half::Low(value))),
            0x084 => set_queue(QueueField::Descriptors(Half::High(value))),
            0x090 => set_queue(QueueField::Driver(Half::Low(value))),
            0x094 => set_queue(QueueField::Driver(Half::High(value))),
            0x0a0 => set_queue(QueueField::Device(Half::Low(value))),
            0x0a4 => set_queue(QueueField::Device(Half::High(value))),
            _ => {}
        }
        Outcome::Done
    }
}

/// Selectors. The driver serialises its accesses with a lock of its own.
fn load(register: &AtomicU32) -> u32 {
    register.load(Ordering::SeqCst)
}

fn store(register: &AtomicU32, value: u32) {
    register.store(value, Ordering::SeqCst);
}

impl BusDevice for MmioTransport {
    /// Registers are read as aligned 32 bits (virtio 1.2 §4.2.2.2), the configuration space with any width.
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.control.config().read(offset, data);
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(register) => *register = self.read_register(offset).to_le_bytes(),
            Err(_) => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.control.write_config(offset, data);
            return Outcome::Done;
        }
        match <[u8; 4]>::try_from(data) {
            Ok(register) => self.write_register(offset, u32::from_le_bytes(register)),
            Err(_) => Outcome::Done,
        }
    }

    fn is_holding(&self) -> bool {
        self.control.is_resetting()
    }
}
