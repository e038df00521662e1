//! ACPI fixed hardware: the power button and the soft-off register.

mod state;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_acpi::{Override, Polarity, Trigger};
use vmm_bus::{BusDevice, IrqLine, Outcome, SystemEvent};
use vmm_config::NoFields;

use crate::{AcpiParts, BuiltDevice, FixedHardware, LegacyKind, Place, PowerButton, Presence, Wiring};
pub use state::PowerState;

/// Offsets of the registers from the first port. Each has two bytes (ACPI 6.5 §4.8.3).
const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = 4;

/// PWRBTN_STS and PWRBTN_EN: bit 8 of the PM1 status and enable registers (§4.8.3.1).
const POWER_BUTTON: u16 = 1 << 8;
/// SCI_EN: bit 0 of the PM1 control register. Always set, since there is no SMM that could switch ACPI on or off (§4.8.3.2).
const SCI_ENABLED: u16 = 1;
/// SLP_EN: bit 13 of the PM1 control register. Writing 1 enters the sleep state given by SLP_TYP.
const SLEEP_ENABLE: u16 = 1 << 13;
/// SLP_TYP: bits 12:10.
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 0b111;

/// The PM1a event and control registers.
///
/// A guest powers the machine off by entering the sleep state S5, as Linux's `poweroff` does.
/// [`press_power_button`](Self::press_power_button) raises the system control interrupt if the guest has enabled the button.
#[derive(Debug)]
pub struct PowerManagement {
    registers: Mutex<Registers>,
    sci: IrqLine,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Registers {
    status: u16,
    enable: u16,
    sleep_type: u16,
}

impl PowerManagement {
    /// The event block (4 ports), followed by the control block (2). The ports are unused on a PC, and other monitors use them
    /// too.
    pub const PORTS: Range<u64> = 0x600..0x606;
    /// ISA interrupt number of the system control interrupt, a PC's usual one.
    const SCI: u32 = 9;
    /// SLP_TYP of S5. The number is arbitrary, but must be the one in `\_S5`.
    const SOFT_OFF: u8 = 5;

    /// Creates the device. `sci` is its system control interrupt.
    pub fn new(sci: IrqLine) -> Self {
        Self { registers: Mutex::default(), sci }
    }

    /// Presses the power button once. Returns `false` if the guest isn't interrupted, because it hasn't enabled the event.
    #[must_use]
    pub fn press_power_button(&self) -> bool {
        let mut registers = self.registers();
        registers.status |= POWER_BUTTON;
        let is_enabled = registers.has_event();
        drop(registers);
        if is_enabled {
            self.interrupt();
        }
        is_enabled
    }

    fn interrupt(&self) {
        // It can't fail: the eventfd's counter would have to reach 2^64 - 1.
        let _ = self.sci.trigger();
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("no panic while it is held")
    }
}

impl Registers {
    /// Whether an enabled event is pending.
    fn has_event(&self) -> bool {
        self.status & self.enable != 0
    }

    /// The register at an even offset.
    fn read(&self, offset: u64) -> u16 {
        match offset {
            STATUS => self.status,
            ENABLE => self.enable,
            _ => SCI_ENABLED | self.sleep_type << SLEEP_TYPE_SHIFT,
        }
    }
}

impl LegacyKind for PowerManagement {
    const NAME: &'static str = "power management";
    const PRESENCE: Presence = Presence::WithAcpi;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(Self::PORTS).with_gsi(Self::SCI)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.power = Some(FixedHardware {
            pm1_event_port: place.ports.start as u16,
            pm1_control_port: (place.ports.start + CONTROL) as u16,
            sci: Self::SCI as u8,
            s5_sleep_type: Self::SOFT_OFF,
        });
        // Kernels assume that the SCI is level-triggered, but an eventfd raises edges.
        acpi.overrides.push(Override {
            irq: Self::SCI as u8,
            gsi: Self::SCI,
            polarity: Polarity::ActiveHigh,
            trigger: Trigger::Edge,
        });
        Ok(())
    }

    fn build(_config: &NoFields, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        let device = Arc::new(Self::new(wiring.interrupt()?));
        let built = BuiltDevice::new(Arc::clone(&device)).with_state(Arc::clone(&device) as _);
        Ok(built.with_power_button(device))
    }
}

impl PowerButton for PowerManagement {
    fn press(&self) -> bool {
        self.press_power_button()
    }
}

impl BusDevice for PowerManagement {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.registers();
        let bytes = [STATUS, ENABLE, CONTROL].map(|at| registers.read(at).to_le_bytes()).concat();
        let from = (offset as usize).min(bytes.len());
        data.iter_mut().zip(&bytes[from..]).for_each(|(to, from)| *to = *from);
    }

    /// Accepts accesses of two bytes at the start of a register, and of four at the status, as made by ACPI drivers.
    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let mut registers = self.registers();
        let mut outcome = Outcome::Done;
        let had_event = registers.has_event();
        for (offset, pair) in (offset..).step_by(2).zip(data.chunks_exact(2)) {
            let value = u16::from_le_bytes([pair[0], pair[1]]);
            match offset {
                // Writing 1 clears a bit.
                STATUS => registers.status &= !value,
                ENABLE => registers.enable = value,
                CONTROL => {
                    registers.sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                    let sleeps = value & SLEEP_ENABLE != 0;
                    if sleeps && registers.sleep_type == u16::from(Self::SOFT_OFF) {
                        outcome = Outcome::End(SystemEvent::PowerOff);
                    }
                }
                _ => {}
            }
        }
        // The interrupt is raised when an enabled event becomes pending, including by enabling one that already is.
        let interrupts = registers.has_event() && !had_event;
        drop(registers);
        if interrupts {
            self.interrupt();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> (PowerManagement, IrqLine) {
        let sci = IrqLine::new().unwrap();
        (PowerManagement::new(sci.clone()), sci)
    }

    fn read(device: &PowerManagement, offset: u64) -> u16 {
        let mut bytes = [0xff; 2];
        device.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    #[test]
    fn pm_soft_off_powers_off() {
        let (device, _) = device();
        let s5 = u16::from(PowerManagement::SOFT_OFF) << 10;
        // Linux writes SLP_TYP first, and then the same value with SLP_EN.
        assert_eq!(device.write(CONTROL, &s5.to_le_bytes()), Outcome::Done);
        let asleep = s5 | SLEEP_ENABLE;
        assert_eq!(device.write(CONTROL, &asleep.to_le_bytes()), Outcome::End(SystemEvent::PowerOff));
    }

    #[test]
    fn pm_other_sleep_states_do_nothing() {
        let (device, _) = device();
        assert_eq!(device.write(CONTROL, &(SLEEP_ENABLE | 1 << 10).to_le_bytes()), Outcome::Done);
    }

    #[test]
    fn pm_power_button_interrupts_a_guest_that_enabled_it() {
        let (device, sci) = device();
        assert_eq!(device.write(ENABLE, &POWER_BUTTON.to_le_bytes()), Outcome::Done);
        assert!(device.press_power_button());
        assert_eq!(sci.event().read().unwrap(), 1);
        assert_eq!(read(&device, STATUS), POWER_BUTTON);
        assert_eq!(device.write(STATUS, &POWER_BUTTON.to_le_bytes()), Outcome::Done);
        assert_eq!(read(&device, STATUS), 0, "writing 1 clears it");
    }

    #[test]
    fn pm_power_button_that_is_not_enabled_is_reported() {
        let (device, sci) = device();
        assert!(!device.press_power_button());
        assert!(sci.event().read().is_err());
    }

    #[test]
    fn pm_power_button_pressed_before_it_is_enabled_interrupts_when_enabled() {
        let (device, sci) = device();
        assert!(!device.press_power_button());
        assert_eq!(device.write(ENABLE, &POWER_BUTTON.to_le_bytes()), Outcome::Done);
        assert_eq!(sci.event().read().unwrap(), 1);
        assert_eq!(device.write(ENABLE, &POWER_BUTTON.to_le_bytes()), Outcome::Done);
        assert!(sci.event().read().is_err(), "only once");
    }

    #[test]
    fn pm_acpi_is_always_on() {
        let (device, _) = device();
        assert_eq!(device.write(CONTROL, &[0, 0]), Outcome::Done);
        assert_eq!(read(&device, CONTROL) & SCI_ENABLED, SCI_ENABLED);
    }

    #[test]
    fn pm_accesses_of_every_width_at_every_offset_are_harmless() {
        let (device, _) = device();
        for offset in 0..PowerManagement::PORTS.end - PowerManagement::PORTS.start {
            for len in [1, 2, 4] {
                device.read(offset, &mut vec![0xff; len]);
                assert_eq!(device.write(offset, &vec![0; len]), Outcome::Done);
            }
        }
    }
}
