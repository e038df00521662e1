//! The PCI transport: a register of the vocabulary is a field of a structure in BAR 0, with a width of its own.

use std::sync::{Arc, Mutex};

use vmm_bus::{BusDevice, EventFd, Outcome};
use vmm_pci::{
    BarMove, BarMover, CONFIG_LEN, CONTROL_ENABLE, CONTROL_FUNCTION_MASK, Cam, ENTRY_LEN, Ecam, Function,
    HostBridge, RootBus,
};
use vmm_snapshot::StateError;

use super::messages::{CONFIG_VECTOR, Messages, Sender};
use super::probe::{ConfigAccess, Structures};
use crate::testing::Register;
use crate::testing::section::{from_bytes, to_bytes};
use crate::{Control, ControlParams, Notices, PciTransport, SaveError, VirtioDevice};

/// The function's slot. Slot 0 is the host bridge's.
const SLOT: usize = 3;
/// Where the machine puts the BAR, and where it can be.
const BAR_ADDRESS: u64 = 0xc010_0000;
const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xd000_0000;
/// COMMAND.
const COMMAND: u64 = 0x04;
/// COMMAND: memory accesses and bus mastering.
const COMMAND_ON: u16 = 0b110;
/// The registers of BAR 0.
const BAR: u64 = 0x10;
/// Bytes of the device's configuration that an image has: more than any device of this workspace has.
const DEVICE_LEN: u64 = 0x80;

/// A PCI function, its bus, and the driver's interrupt controller.
///
/// As a [`BusDevice`] it is BAR 0, wherever that is decoded. While it isn't, it reads as ones and ignores writes.
pub struct PciPort {
    transport: Arc<PciTransport>,
    cam: Cam,
    ecam: Ecam,
    // After `ecam`, which refers to it.
    bus: Arc<RootBus>,
    decoded: DecodedAt,
    messages: Arc<Messages>,
    structures: Structures,
    /// Offsets in the BAR of the queues' notification registers.
    notify: Vec<u64>,
}

/// The guest's memory map, which has room for the BAR wherever it is wanted.
#[derive(Clone, Default)]
struct DecodedAt(Arc<Mutex<Option<u64>>>);

impl DecodedAt {
    fn get(&self) -> Option<u64> {
        *self.0.lock().expect("no panic while it is held")
    }
}

impl BarMover for DecodedAt {
    fn move_bar(&self, slot: usize, wanted: BarMove) -> bool {
        assert_eq!((slot, wanted.bar, wanted.from), (SLOT, 0, self.get()), "it is moved from where it is");
        *self.0.lock().expect("no panic while it is held") = wanted.to;
        true
    }
}

impl PciPort {
    pub(super) fn new(params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        let queues = device.queue_sizes().len();
        let mut port = Self::attach(params, device);
        port.enable();
        port.set_up_interrupts();
        port.notify = (0..queues as u16).map(|queue| port.notify_register(queue)).collect();
        port
    }

    /// A fresh function with another device, which no driver has touched.
    pub(super) fn unprobed(&self, params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        Self { notify: self.notify.clone(), ..Self::attach(params, device) }
    }

    /// A function that no driver has touched, apart from looking for its structures.
    fn attach(params: ControlParams, device: Box<dyn VirtioDevice>) -> Self {
        let queues = device.queue_sizes().len();
        let messages = Arc::new(Messages::new(queues + 1));
        let sender = Box::new(Sender(Arc::clone(&messages)));
        let transport = PciTransport::new(params, device, sender, BAR_ADDRESS, WINDOW);
        let transport = Arc::new(transport.expect("a thread and descriptors"));
        let decoded = DecodedAt::default();
        let mut bus = RootBus::new(Box::new(decoded.clone()));
        bus.insert(0, Arc::new(HostBridge::new()));
        bus.insert(SLOT, Arc::clone(&transport) as Arc<dyn Function>);
        let bus = Arc::new(bus);
        let (cam, ecam) = (bus.cam(), bus.ecam());
        let structures = Structures::find(&ConfigAccess { ecam: &ecam, start: (SLOT as u64) << 15 });
        Self { transport, cam, ecam, bus, decoded, messages, structures, notify: Vec::new() }
    }

    pub(super) fn save(&self) -> Result<Vec<u8>, SaveError> {
        Ok(to_bytes(&self.transport.save()?))
    }

    /// Loads a section. The bus then decodes the BAR where the state has it.
    pub(super) fn load(&self, section: &[u8]) -> Result<(), StateError> {
        self.transport.load(&from_bytes(section)?)?;
        let mut command = [0; 2];
        self.read_config(COMMAND, &mut command);
        let _ = self.write_config(COMMAND, &command);
        Ok(())
    }

    /// The configuration space, the table, the pending bits, and common and device configuration with each value of the selectors.
    /// ISR status isn't there, because reading it clears it.
    pub(super) fn image(&self, queues: u32) -> Vec<u8> {
        let mut image = Vec::new();
        for offset in (0..CONFIG_LEN as u64).step_by(4) {
            let mut bytes = [0xff; 4];
            self.read_config(offset, &mut bytes);
            image.extend(bytes);
        }
        let mut read = |start: u64, len: u64, width: usize| {
            for offset in (start..start + len).step_by(width) {
                let mut bytes = [0xff; 4];
                self.transport.read(offset, &mut bytes[..width]);
                image.extend(&bytes[..width]);
            }
        };
        let Structures { common, device, table, pending, vectors, .. } = self.structures;
        read(table, (vectors * ENTRY_LEN) as u64, 4);
        read(pending, vectors.div_ceil(64) as u64 * 8, 4);
        // As they are, and then with each of them.
        for select in [None].into_iter().chain((0..queues.max(2)).map(Some)) {
            if let Some(select) = select {
                for (offset, width) in [(0, 4), (8, 4), (22, 2)] {
                    let _ =
                        BusDevice::write(&*self.transport, common + offset, &select.to_le_bytes()[..width]);
                }
            }
            for width in [1, 2, 4] {
                read(common, 0x38, width);
            }
            read(device, DEVICE_LEN, 4);
        }
        image
    }

    /// Offset in the BAR of a queue's notification register (virtio 1.2 §4.1.4.4).
    fn notify_register(&self, queue: u16) -> u64 {
        self.write_bar(self.structures.common + 22, &queue.to_le_bytes());
        let off = u16::from_le_bytes(self.read_bar(self.structures.common + 30));
        self.structures.notify + u64::from(off) * self.structures.multiplier
    }

    /// What a probe does before it touches the registers: it puts the BAR where it wants it, and enables memory accesses and bus
    /// mastering.
    ///
    /// # Panics
    /// The BAR isn't decoded there.
    pub(super) fn enable(&self) {
        let _ = self.write_config(COMMAND, &0_u16.to_le_bytes());
        let _ = self.write_config(BAR, &(BAR_ADDRESS as u32).to_le_bytes());
        let _ = self.write_config(BAR + 4, &[0; 4]);
        let _ = self.write_config(COMMAND, &COMMAND_ON.to_le_bytes());
        assert_eq!(self.decoded.get(), Some(BAR_ADDRESS), "the BAR is decoded where the driver wants it");
    }

    /// Sets MSI-X up with a vector for the configuration and one for each queue. A virtio reset unmaps the vectors, so this is done after
    /// each.
    ///
    /// # Panics
    /// The function doesn't take it.
    pub(super) fn set_up_interrupts(&self) {
        let control = self.structures.msix + 2;
        let _ = self.write_config(control, &(CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes());
        for vector in 0..self.structures.vectors {
            let entry = self.structures.table + (vector * ENTRY_LEN) as u64;
            let message = Messages::of_vector(vector);
            let [low, high] = [message.address as u32, (message.address >> 32) as u32];
            for (at, dword) in (entry..).step_by(4).zip([low, high, message.data, 0]) {
                self.write_bar(at, &dword.to_le_bytes());
            }
        }
        let _ = self.write_config(control, &CONTROL_ENABLE.to_le_bytes());
        let common = self.structures.common;
        self.map_vector(common + 16, CONFIG_VECTOR);
        for queue in 0..self.structures.vectors as u16 - 1 {
            self.write_bar(common + 22, &queue.to_le_bytes());
            self.map_vector(common + 26, queue + 1);
        }
        // Of the driver that was there before.
        let _ = (self.messages.event.read(), self.messages.take_config_change());
    }

    fn map_vector(&self, register: u64, vector: u16) {
        self.write_bar(register, &vector.to_le_bytes());
        assert_eq!(u16::from_le_bytes(self.read_bar(register)), vector, "the vector is mapped");
    }

    /// Offset and width of a register.
    fn place(&self, register: Register) -> (u64, usize) {
        let (offset, width) = match register {
            Register::DeviceFeaturesSel => (0, 4),
            Register::DeviceFeatures => (4, 4),
            Register::DriverFeaturesSel => (8, 4),
            Register::DriverFeatures => (12, 4),
            Register::Status => (20, 1),
            Register::ConfigGeneration => (21, 1),
            Register::QueueSel => (22, 2),
            // After a reset the size is the maximum.
            Register::QueueSizeMax | Register::QueueSize => (24, 2),
            Register::QueueReady => (28, 2),
            Register::QueueDescLow => (32, 4),
            Register::QueueDescHigh => (36, 4),
            Register::QueueDriverLow => (40, 4),
            Register::QueueDriverHigh => (44, 4),
            Register::QueueDeviceLow => (48, 4),
            Register::QueueDeviceHigh => (52, 4),
            Register::InterruptStatus => return (self.structures.isr, 1),
            Register::Config => return (self.structures.device, 4),
            Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::QueueNotify
            | Register::InterruptAck => panic!("the PCI transport has no register {register:?} to access"),
        };
        (self.structures.common + offset, width)
    }

    pub(super) fn read_register(&self, register: Register) -> u32 {
        let (offset, width) = self.place(register);
        let mut bytes = [0; 4];
        BusDevice::read(self, offset, &mut bytes[..width]);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write_register(&self, register: Register, value: u32) -> Outcome {
        let bytes = value.to_le_bytes();
        if register == Register::QueueNotify {
            // A queue that there isn't has its register where it would be.
            let beyond = self.structures.notify + u64::from(value) * self.structures.multiplier;
            let at = self.notify.get(value as usize).copied().unwrap_or(beyond);
            return BusDevice::write(self, at, &bytes[..2]);
        }
        let (offset, width) = self.place(register);
        BusDevice::write(self, offset, &bytes[..width])
    }

    fn read_bar<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        BusDevice::read(self, offset, &mut bytes);
        bytes
    }

    fn write_bar(&self, offset: u64, bytes: &[u8]) {
        let _ = BusDevice::write(self, offset, bytes);
    }

    /// Reads configuration space through ECAM.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        self.ecam.read(((SLOT as u64) << 15) + offset, bytes);
    }

    /// Writes configuration space through ECAM.
    pub fn write_config(&self, offset: u64, bytes: &[u8]) -> Outcome {
        self.ecam.write(((SLOT as u64) << 15) + offset, bytes)
    }
}

impl PciPort {
    pub(super) fn area(&self) -> &dyn BusDevice {
        self
    }

    pub(super) fn config(&self) -> (u64, u64) {
        (self.structures.device, self.structures.device_len)
    }

    pub(super) fn control(&self) -> &Control {
        self.transport.control()
    }

    pub(super) fn interrupt(&self) -> &EventFd {
        &self.messages.event
    }

    pub(super) fn take_config_change(&self) -> bool {
        self.messages.take_config_change()
    }

    /// Ends the machine: the bus has the function, too.
    pub(super) fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        let Self { transport, bus, .. } = self;
        drop(bus);
        Arc::into_inner(transport).expect("nobody else has a reference").into_device()
    }

    /// Where the structures are.
    pub(crate) fn structures(&self) -> &Structures {
        &self.structures
    }

    /// The ports of configuration mechanism #1.
    pub fn cam(&self) -> &Cam {
        &self.cam
    }

    /// Where BAR 0 is decoded.
    pub fn decoded_at(&self) -> Option<u64> {
        self.decoded.get()
    }

    /// Messages of a vector so far: 0 is the configuration's, those of the queues follow.
    pub fn messages(&self, vector: usize) -> u64 {
        self.messages.count(vector)
    }

    /// Messages so far that the driver has set up for no vector.
    pub fn stray_messages(&self) -> u64 {
        self.messages.strays()
    }
}

impl BusDevice for PciPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.decoded.get() {
            Some(_) => self.transport.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        match self.decoded.get() {
            Some(_) => BusDevice::write(&*self.transport, offset, data),
            None => Outcome::Done,
        }
    }

    fn is_holding(&self) -> bool {
        BusDevice::is_holding(&*self.transport)
    }
}
