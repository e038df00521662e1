//! The state of a device's control side, as a snapshot keeps it.

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueState;
use vmm_pci::MAX_VECTORS;
use vmm_snapshot::{FieldReader, FieldWriter, StateError};

use crate::DeviceSection;
use crate::queue::RingPosition;
use crate::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};

/// Queues of a device at most: a PCI function has a vector for each of them.
const QUEUES_MAX: usize = MAX_VECTORS;
/// Length of a configuration space at most, in bytes: what MMIO has room for.
const CONFIG_MAX: usize = 0xf00;

/// Status bits that the driver has set, each with those that it requires (virtio 1.2 §3.1.1).
const ORDER: [(u8, u8); 3] =
    [(DRIVER, ACKNOWLEDGE), (FEATURES_OK, DRIVER), (DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK)];

/// What every transport has: status, features, queues and configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlState {
    pub(crate) device_id: u32,
    pub(crate) offered: u64,
    /// What the driver has written, which may be anything until FEATURES_OK.
    pub(crate) accepted: u64,
    pub(crate) status: u8,
    pub(crate) needs_reset: bool,
    pub(crate) was_driven: bool,
    pub(crate) generation: u32,
    pub(crate) config: Vec<u8>,
    pub(crate) queues: Vec<QueueRegisters>,
    /// `None` if the device has none of its own.
    pub(crate) device: Option<DeviceSection>,
}

/// A queue as its driver has set it up, and how far the device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRegisters {
    pub(crate) size: u16,
    pub(crate) ready: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    /// `None` before DRIVER_OK, and if the rings were invalid then.
    pub(crate) position: Option<RingPosition>,
}

impl ControlState {
    pub(crate) fn save(&self, fields: &mut FieldWriter) {
        fields.u32(self.device_id);
        fields.u64(self.offered);
        fields.u64(self.accepted);
        fields.u8(self.status);
        fields.bool(self.needs_reset);
        fields.bool(self.was_driven);
        fields.u32(self.generation);
        fields.bytes(&self.config);
        fields.list(&self.queues, |fields, queue| queue.save(fields));
        fields.option(self.device.as_ref(), |fields, device| device.save(fields));
    }

    /// Checks only what doesn't depend on the device; [`Control`](crate::Control) does the rest.
    pub(crate) fn load(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            device_id: fields.u32("device_id")?,
            offered: fields.u64("offered")?,
            accepted: fields.u64("accepted")?,
            status: fields.u8("status")?,
            needs_reset: fields.bool("needs_reset")?,
            was_driven: fields.bool("was_driven")?,
            generation: fields.u32("config_generation")?,
            config: fields.bytes("config", CONFIG_MAX)?.to_vec(),
            queues: fields.list("queues", QUEUES_MAX, QueueRegisters::load)?,
            device: fields.option("device", DeviceSection::load)?,
        })
    }

    pub(crate) fn has(&self, bit: u8) -> bool {
        self.status & bit != 0
    }

    /// Whether the driver's set-up is complete, and the device can serve it.
    pub(crate) fn is_served(&self) -> bool {
        self.has(DRIVER_OK) && !self.needs_reset
    }

    pub(crate) fn check_status(&self) -> Result<(), StateError> {
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
        let is_in_order =
            ORDER.iter().all(|(bit, needed)| !self.has(*bit) || self.status & needed == *needed);
        if self.status & !known != 0 || !is_in_order {
            return Err(StateError::new(
                "status",
                format!("{:#x} can't be reached by a driver", self.status),
            ));
        }
        if self.needs_reset && !self.has(DRIVER_OK) {
            return Err(StateError::new("needs_reset", "is set for a device that hasn't been started"));
        }
        Ok(())
    }

    pub(crate) fn queue(&self, registers: &QueueRegisters, max_size: u16) -> QueueState {
        let RingPosition { available, used } = registers.position.unwrap_or_default();
        QueueState {
            max_size,
            next_avail: available,
            next_used: used,
            event_idx_enabled: self.accepted & 1 << VIRTIO_RING_F_EVENT_IDX != 0 && self.has(DRIVER_OK),
            size: registers.size,
            ready: registers.ready,
            desc_table: registers.descriptors,
            avail_ring: registers.available,
            used_ring: registers.used,
        }
    }
}

impl QueueRegisters {
    pub(crate) fn of(queue: &QueueState, position: Option<RingPosition>) -> Self {
        Self {
            size: queue.size,
            ready: queue.ready,
            descriptors: queue.desc_table,
            available: queue.avail_ring,
            used: queue.used_ring,
            position,
        }
    }

    fn save(&self, fields: &mut FieldWriter) {
        fields.u16(self.size);
        fields.bool(self.ready);
        fields.u64(self.descriptors);
        fields.u64(self.available);
        fields.u64(self.used);
        fields.option(self.position, |fields, position| {
            fields.u16(position.available);
            fields.u16(position.used);
        });
    }

    fn load(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            size: fields.u16("size")?,
            ready: fields.bool("ready")?,
            descriptors: fields.u64("descriptors")?,
            available: fields.u64("available")?,
            used: fields.u64("used")?,
            position: fields.option("position", |fields| {
                Ok(RingPosition { available: fields.u16("next_available")?, used: fields.u16("next_used")? })
            })?,
        })
    }
}
