//! The common configuration structure (virtio 1.2 §4.1.4.3). Each register is accessed with its own width; 64-bit ones as two halves.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use vmm_bus::Outcome;

use super::interrupt::PciInterrupt;
use crate::control::{Control, Half, QueueField};

/// The registers that are the transport's own.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) device_feature_select: AtomicU32,
    pub(super) driver_feature_select: AtomicU32,
    pub(super) queue_select: AtomicU16,
}

impl Common {
    pub(super) fn read(&self, control: &Control, interrupt: &PciInterrupt, offset: u64, data: &mut [u8]) {
        let value = self.value(control, interrupt, offset, data.len()).unwrap_or(0);
        let bytes = value.to_le_bytes();
        data.fill(0);
        data.iter_mut().zip(bytes).for_each(|(into, byte)| *into = byte);
    }

    fn value(&self, control: &Control, interrupt: &PciInterrupt, offset: u64, width: usize) -> Option<u32> {
        let selected = self.queue_select.load(Ordering::SeqCst);
        let queue = || control.queue(selected.into()).unwrap_or_default();
        let half = |features: u64, select: &AtomicU32| match select.load(Ordering::SeqCst) {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let (low, high) = (|address: u64| address as u32, |address: u64| (address >> 32) as u32);
        Some(match (offset, width) {
            (0, 4) => self.device_feature_select.load(Ordering::SeqCst),
            (4, 4) => half(control.offered(), &self.device_feature_select),
            (8, 4) => self.driver_feature_select.load(Ordering::SeqCst),
            (12, 4) => half(control.accepted(), &self.driver_feature_select),
            (16, 2) => interrupt.vector(None).into(),
            (18, 2) => control.kicks().len() as u32,
            (20, 1) => control.status().into(),
            (21, 1) => control.config().generation() & 0xff,
            (22, 2) => selected.into(),
            (24, 2) => queue().size.into(),
            (26, 2) => interrupt.vector(Some(selected)).into(),
            (28, 2) => queue().ready.into(),
            (30, 2) => selected.into(),
            (32, 4) => low(queue().desc_table),
            (36, 4) => high(queue().desc_table),
            (40, 4) => low(queue().avail_ring),
            (44, 4) => high(queue().avail_ring),
            (48, 4) => low(queue().used_ring),
            (52, 4) => high(queue().used_ring),
            // queue_notify_data and queue_reset belong to features that aren't offered.
            _ => return None,
        })
    }

    pub(super) fn write(
        &self,
        control: &Control,
        interrupt: &PciInterrupt,
        offset: u64,
        data: &[u8],
    ) -> Outcome {
        let mut bytes = [0; 4];
        let Some(into) = bytes.get_mut(..data.len()) else { return Outcome::Done };
        into.copy_from_slice(data);
        let value = u32::from_le_bytes(bytes);
        let selected = self.queue_select.load(Ordering::SeqCst);
        let set_queue = |field| control.set_queue(selected.into(), field);
        match (offset, data.len()) {
            (0, 4) => self.device_feature_select.store(value, Ordering::SeqCst),
            (8, 4) => self.driver_feature_select.store(value, Ordering::SeqCst),
            (12, 4) => match self.driver_feature_select.load(Ordering::SeqCst) {
                0 => control.set_features(Half::Low(value)),
                1 => control.set_features(Half::High(value)),
                _ => {}
            },
            (16, 2) => interrupt.set_vector(None, value as u16),
            (20, 1) => return control.set_status(value as u8),
            (22, 2) => self.queue_select.store(value as u16, Ordering::SeqCst),
            (24, 2) => set_queue(QueueField::Size(value)),
            (26, 2) => interrupt.set_vector(Some(selected), value as u16),
            // Only 1 has a meaning.
            (28, 2) if value == 1 => set_queue(QueueField::Ready(true)),
            (32, 4) => set_queue(QueueField::Descriptors(Half::Low(value))),
            (36, 4) => set_queue(QueueField::Descriptors(Half::High(value))),
            (40, 4) => set_queue(QueueField::Driver(Half::Low(value))),
            (44, 4) => set_queue(QueueField::Driver(Half::High(value))),
            (48, 4) => set_queue(QueueField::Device(Half::Low(value))),
            (52, 4) => set_queue(QueueField::Device(Half::High(value))),
            _ => {}
        }
        Outcome::Done
    }
}
