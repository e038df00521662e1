//! The state of a device that is a PCI function, as a snapshot keeps it.

use vmm_pci::{CONFIG_LEN, MAX_VECTORS, Message, Vector};
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::interrupt::InterruptRegisters;
use crate::control_state::ControlState;

/// A device that is a PCI function: its configuration space, its vectors, the queues, and the device's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciState {
    pub(super) config: [u8; CONFIG_LEN],
    pub(super) vectors: Vec<Vector>,
    pub(super) interrupt: InterruptRegisters,
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) queue_select: u16,
    pub(super) control: ControlState,
}

impl State for PciState {
    const KIND: &'static str = "virtio.pci";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.array(&self.config);
        fields.list(&self.vectors, |fields, vector| {
            fields.u64(vector.message.address);
            fields.u32(vector.message.data);
            fields.bool(vector.masked);
            fields.bool(vector.pending);
        });
        fields.u8(self.interrupt.isr);
        fields.u16(self.interrupt.config_vector);
        fields.list(&self.interrupt.queue_vectors, |fields, vector| fields.u16(*vector));
        fields.u32(self.device_feature_select);
        fields.u32(self.driver_feature_select);
        fields.u16(self.queue_select);
        self.control.save(fields);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            config: fields.array("config_space")?,
            vectors: fields.list("vectors", MAX_VECTORS, vector)?,
            interrupt: InterruptRegisters {
                isr: fields.u8("isr")?,
                config_vector: fields.u16("config_vector")?,
                queue_vectors: fields.list("queue_vectors", MAX_VECTORS, |fields| fields.u16("vector"))?,
            },
            device_feature_select: fields.u32("device_feature_select")?,
            driver_feature_select: fields.u32("driver_feature_select")?,
            queue_select: fields.u16("queue_select")?,
            control: ControlState::load(fields)?,
        })
    }
}

fn vector(fields: &mut FieldReader<'_>) -> Result<Vector, StateError> {
    let message = Message { address: fields.u64("address")?, data: fields.u32("data")? };
    if message.address & 0b11 != 0 {
        return Err(StateError::new("address", format!("{:#x} has reserved bits", message.address)));
    }
    Ok(Vector { message, masked: fields.bool("masked")?, pending: fields.bool("pending")? })
}
