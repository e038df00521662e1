//! The state of the ACPI fixed hardware.

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::{POWER_BUTTON, PowerManagement, Registers, SLEEP_TYPE_MASK};
use crate::Stateful;

/// The registers of [`PowerManagement`]: PM1 status, enable and control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerState(Registers);

impl State for PowerState {
    const KIND: &'static str = "dev.power";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        let Registers { status, enable, sleep_type } = &self.0;
        fields.u16(*status);
        fields.u16(*enable);
        fields.u16(*sleep_type);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let within = |field, value: u16, bits: u16| match value & !bits {
            0 => Ok(value),
            _ => Err(StateError::new(field, format!("{value:#x} isn't possible"))),
        };
        Ok(Self(Registers {
            status: within("status", fields.u16("status")?, POWER_BUTTON)?,
            enable: fields.u16("enable")?,
            sleep_type: within("sleep_type", fields.u16("sleep_type")?, SLEEP_TYPE_MASK)?,
        }))
    }
}

impl Stateful for PowerManagement {
    type State = PowerState;

    fn save(&self) -> PowerState {
        PowerState(self.registers().clone())
    }

    /// The system control interrupt is raised again if an enabled event is pending: its edge may have been lost.
    fn load(&self, state: &PowerState) -> Result<(), StateError> {
        let mut registers = self.registers();
        *registers = state.0.clone();
        let has_event = registers.has_event();
        drop(registers);
        if has_event {
            self.interrupt();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_bus::{BusDevice, IrqLine};

    use super::*;
    use crate::testing::{assert_loads_or_refuses, load, reload, saved};

    fn device() -> (PowerManagement, IrqLine) {
        let sci = IrqLine::new().unwrap();
        (PowerManagement::new(sci.clone()), sci)
    }

    fn registers(device: &PowerManagement) -> [u8; 6] {
        let mut bytes = [0xff; 6];
        device.read(0, &mut bytes);
        bytes
    }

    #[test]
    fn pm_power_button_that_is_pending_interrupts_after_a_load() {
        let (from, _) = device();
        let _ = from.write(super::super::ENABLE, &POWER_BUTTON.to_le_bytes());
        assert!(from.press_power_button());
        let (to, sci) = device();
        reload(&from, &to).unwrap();
        assert_eq!(sci.event().read().unwrap(), 1);
        assert_eq!(registers(&to), registers(&from));
        let _ = to.write(0, &POWER_BUTTON.to_le_bytes());
        assert!(to.press_power_button(), "and it works as before");
    }

    #[test]
    fn pm_power_button_that_is_not_enabled_interrupts_once_it_is() {
        let (from, _) = device();
        assert!(!from.press_power_button());
        let (to, sci) = device();
        reload(&from, &to).unwrap();
        assert!(sci.event().read().is_err());
        let _ = to.write(super::super::ENABLE, &POWER_BUTTON.to_le_bytes());
        assert!(sci.event().read().is_ok());
    }

    #[test]
    fn pm_status_without_an_event_of_its_is_refused() {
        let error = load(&device().0, &[1, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(error.to_string(), "status: 0x1 isn't possible");
    }

    proptest! {
        #[test]
        fn pm_after_any_writes_is_loaded_as_it_was(
            writes in prop::collection::vec((0_u64..8, prop::collection::vec(any::<u8>(), 0..5)), 0..20),
            presses: bool,
        ) {
            let (from, _) = device();
            writes.iter().for_each(|(offset, data)| _ = from.write(*offset, data));
            _ = presses && from.press_power_button();
            let (to, _) = device();
            reload(&from, &to).unwrap();
            prop_assert_eq!(registers(&to), registers(&from));
            for (offset, data) in writes {
                prop_assert_eq!(to.write(offset, &data), from.write(offset, &data));
                prop_assert_eq!(registers(&to), registers(&from));
            }
        }

        #[test]
        fn pm_of_any_bytes_is_refused_or_loaded(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            assert_loads_or_refuses(&device().0, &bytes);
        }
    }

    #[test]
    fn pm_state_is_three_registers() {
        assert_eq!(saved(&device().0), [0; 6]);
    }
}
