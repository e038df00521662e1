//! The keyboard controller, as far as it is the machine's reset line.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use vm_superio::{I8042Device, Trigger};
use vmm_acpi::Reset as ResetRegister;
use vmm_bus::{BusDevice, Outcome, SystemEvent};

use crate::{AcpiParts, Built, LegacyKind, NoFields, Place, Presence, Wiring};

/// Offset of the status register (read) and the command register (write) from port 0x60.
const STATUS: u64 = 4;
/// The command that pulses the reset line.
const PULSE_RESET: u8 = 0xfe;
/// What the status register reads. Bit 1, "input buffer full", is clear: Linux's `kb_wait` waits for that
/// before it resets. All others are set, as on a bus where nobody answers; bit 0, "output buffer full",
/// among them, so that Linux's driver finds a controller that never runs empty and gives up at its 16th
/// read, instead of waiting half a second for each answer of a keyboard that isn't there.
const STATUS_NOBODY: u8 = 0xfd;

/// An i8042 without keyboard and mouse. Command 0xfe pulses the reset line: a kernel booted with
/// `reboot=k` ends its machine so. The FADT's reset register is this port as well, so there is one way to reset.
#[derive(Debug, Default)]
pub struct I8042;

impl I8042 {
    /// Its ports on a PC: data at the first, command and status at the last.
    pub const PORTS: Range<u64> = 0x60..0x65;
}

/// Remembers that the device asked for a reset.
struct Reset(Rc<Cell<bool>>);

impl Trigger for Reset {
    type E = Infallible;
    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

impl LegacyKind for I8042 {
    const NAME: &'static str = "i8042 reset";
    const PRESENCE: Presence = Presence::Always;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(Self::PORTS)
    }

    /// It is a reset register and no keyboard controller: nobody shall probe it.
    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.reset = Some(ResetRegister { port: (place.ports.start + STATUS) as u16, value: PULSE_RESET });
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<Built> {
        Ok(Built::new(Self))
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let (STATUS, [status]) = (offset, data) {
            *status = STATUS_NOBODY;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let &[value] = data else { return Outcome::Done };
        let reset = Rc::new(Cell::new(false));
        // The device has no state but its trigger, so it lives for one write and needs no lock.
        let written = I8042Device::new(Reset(Rc::clone(&reset))).write(offset as u8, value);
        match written {
            Ok(()) if reset.get() => Outcome::End(SystemEvent::Reset),
            Ok(()) => Outcome::Done,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8042_command_fe_resets() {
        assert_eq!(I8042.write(4, &[0xfe]), Outcome::End(SystemEvent::Reset));
    }

    #[test]
    fn i8042_other_commands_and_ports_do_nothing() {
        assert_eq!(I8042.write(4, &[0xaa]), Outcome::Done);
        assert_eq!(I8042.write(0, &[0xfe]), Outcome::Done);
        assert_eq!(I8042.write(3, &[0xfe, 0xfe]), Outcome::Done);
    }

    #[test]
    fn i8042_status_lets_kb_wait_pass_and_the_driver_give_up() {
        let mut status = [0xff];
        I8042.read(4, &mut status);
        assert_eq!(status[0] & 0b11, 0b01);
    }

    #[test]
    fn i8042_wide_reads_are_unclaimed() {
        let mut data = [0xff; 4];
        I8042.read(1, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
