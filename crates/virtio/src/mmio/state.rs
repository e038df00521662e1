//! The state of a device with the MMIO transport, as a snapshot keeps it.

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use crate::control_state::ControlState;

/// A device with its registers in memory: the transport, the queues, and the device's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmioState {
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) queue_sel: u32,
    pub(super) interrupt_status: u32,
    pub(super) control: ControlState,
}

impl State for MmioState {
    const KIND: &'static str = "virtio.mmio";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u32(self.device_features_sel);
        fields.u32(self.driver_features_sel);
        fields.u32(self.queue_sel);
        fields.u32(self.interrupt_status);
        self.control.save(fields);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            device_features_sel: fields.u32("device_features_sel")?,
            driver_features_sel: fields.u32("driver_features_sel")?,
            queue_sel: fields.u32("queue_sel")?,
            interrupt_status: fields.u32("interrupt_status")?,
            control: ControlState::load(fields)?,
        })
    }
}
