//! The state of the in-kernel PC hardware: interrupt controllers and timer.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip,
    kvm_irqchip__bindgen_ty_1, kvm_pit_state2,
};
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::uapi::{put, take};
use crate::error::Named;
use crate::{Error, Vm, ioctls};

/// KVM's interrupt controllers, in the order in which they are set.
const CHIPS: [(&str, u32); 3] = [
    ("pic_master", KVM_IRQCHIP_PIC_MASTER),
    ("pic_slave", KVM_IRQCHIP_PIC_SLAVE),
    ("ioapic", KVM_IRQCHIP_IOAPIC),
];

/// The registers of one controller: KVM's union of structures.
type Chip = [u8; size_of::<kvm_irqchip__bindgen_ty_1>()];

/// The state of the two 8259s and the IO-APIC (KVM api.rst KVM_GET_IRQCHIP). The local APICs belong to the vCPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IrqchipState(pub(crate) [Chip; CHIPS.len()]);

/// The state of the 8254 timer and of speaker port 0x61 (KVM api.rst KVM_GET_PIT2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PitState(pub(crate) kvm_pit_state2);

impl State for IrqchipState {
    const KIND: &'static str = "vm.irqchip";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        self.0.iter().for_each(|chip| put(fields, chip));
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let mut chips = [[0; _]; CHIPS.len()];
        for (chip, (name, _)) in chips.iter_mut().zip(CHIPS) {
            *chip = take(fields, name)?;
        }
        Ok(Self(chips))
    }
}

impl State for PitState {
    const KIND: &'static str = "vm.pit";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        put(fields, &self.0);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        take(fields, "pit").map(Self)
    }
}

impl Vm {
    /// The state of the 8259s and the IO-APIC; `None` without in-kernel interrupt controllers. For a snapshot, read it after the
    /// devices have stopped and before the vCPUs ([`VmState`](crate::VmState)).
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn irqchip(&self) -> Result<Option<IrqchipState>, Error> {
        let mut state = IrqchipState([[0; _]; CHIPS.len()]);
        for (chip, (_, id)) in state.0.iter_mut().zip(CHIPS) {
            let mut registers = kvm_irqchip { chip_id: id, ..Default::default() };
            match self.fd.get_irqchip(&mut registers) {
                Err(error) if error.errno() == libc::ENXIO => return Ok(None),
                read => read.named("KVM_GET_IRQCHIP")?,
            }
            *chip = ioctls::chip_bytes(&registers);
        }
        Ok(Some(state))
    }

    /// Sets the state of the 8259s and the IO-APIC. Pending interrupts are delivered to the local APICs, whose state must have been
    /// set before.
    ///
    /// # Errors
    /// There are no in-kernel interrupt controllers, or the ioctl failed.
    pub fn set_irqchip(&self, state: &IrqchipState) -> Result<(), Error> {
        for (bytes, (_, chip_id)) in state.0.iter().zip(CHIPS) {
            let chip = kvm_irqchip__bindgen_ty_1 { dummy: bytes.map(u8::cast_signed) };
            self.fd.set_irqchip(&kvm_irqchip { chip_id, chip, pad: 0 }).named("KVM_SET_IRQCHIP")?;
        }
        Ok(())
    }

    /// The state of the timer; `None` if the VM has none.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn pit(&self) -> Result<Option<PitState>, Error> {
        match self.fd.get_pit2() {
            Err(error) if error.errno() == libc::ENXIO => Ok(None),
            read => read.named("KVM_GET_PIT2").map(|state| Some(PitState(state))),
        }
    }

    /// Sets the state of the timer. Its running counters start anew: they are reloaded with their count.
    ///
    /// # Errors
    /// The VM has no timer, or the ioctl failed.
    pub fn set_pit(&self, state: &PitState) -> Result<(), Error> {
        self.fd.set_pit2(&state.0).named("KVM_SET_PIT2")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saved(state: &impl State) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        state.save(&mut fields);
        fields.into_bytes()
    }

    #[test]
    fn irqchip_without_its_third_controller_is_refused() {
        let bytes = saved(&IrqchipState([[7; 512]; 3]));
        assert_eq!(bytes.len(), 3 * (4 + 512));
        let error = IrqchipState::load(1, &mut FieldReader::new(&bytes[..1032])).unwrap_err();
        assert_eq!(error.to_string(), "ioapic: has 4 bytes, but the section ends after 0");
    }

    proptest! {
        #[test]
        fn chips_loaded_are_saved_as_they_were(bytes in prop::collection::vec(any::<u8>(), 3 * 516)) {
            let mut section = bytes.clone();
            section.chunks_mut(516).for_each(|chip| chip[..4].copy_from_slice(&512_u32.to_le_bytes()));
            let state = IrqchipState::load(1, &mut FieldReader::new(&section)).unwrap();
            prop_assert!(saved(&state) == section);
            let mut section = bytes[..116].to_vec();
            section[..4].copy_from_slice(&112_u32.to_le_bytes());
            let state = PitState::load(1, &mut FieldReader::new(&section)).unwrap();
            prop_assert_eq!(saved(&state), section);
        }

        #[test]
        fn chips_of_any_bytes_are_refused_or_a_state(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = PitState::load(1, &mut FieldReader::new(&bytes)).map(|state| saved(&state));
            let _ = IrqchipState::load(1, &mut FieldReader::new(&bytes)).map(|state| saved(&state));
        }
    }
}
