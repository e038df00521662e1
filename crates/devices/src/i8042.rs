//! The keyboard controller, reduced to its reset line.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use vm_superio::{I8042Device, Trigger};
use vmm_acpi::Reset as ResetRegister;
use vmm_bus::{BusDevice, Outcome, SystemEvent};
use vmm_config::NoFields;

use crate::{AcpiParts, BuiltDevice, LegacyKind, Place, Presence, Wiring};

/// Offset of the status register (read) and the command register (write) from port 0x60.
const STATUS: u64 = 4;
/// Command "pulse output lines", with the mask that selects only the reset line.
const PULSE_RESET: u8 = 0xfe;
/// The value of the status register. Bit 1, "input buffer full", is clear: Linux's `kb_wait` waits for that
/// before it resets. All other bits are set, as on an empty bus. Because of bit 0, "output buffer full",
/// Linux's driver sees a controller whose buffer never empties, and gives up at the 16th read instead of
/// waiting half a second for each reply of a missing keyboard.
const STATUS_VALUE: u8 = 0xfd;

/// An i8042 without keyboard and mouse. Command 0xfe pulses the reset line, which is how a kernel booted
/// with `reboot=k` resets. The FADT's reset register is the same port, so that there is one way to reset.
#[derive(Debug, Default)]
pub struct I8042;

impl I8042 {
    /// A PC's ports for it: data at the first, command and status at the last.
    pub const PORTS: Range<u64> = 0x60..0x65;
}

/// Records that the reset line was pulsed.
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

    /// Described only as the reset register: with a device object, guests would probe for a keyboard controller.
    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.reset = Some(ResetRegister { port: (place.ports.start + STATUS) as u16, value: PULSE_RESET });
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        // Its commands take effect at once.
        Ok(BuiltDevice::new(Self).without_state())
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let (STATUS, [status]) = (offset, data) {
            *status = STATUS_VALUE;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let &[value] = data else { return Outcome::Done };
        let reset = Rc::new(Cell::new(false));
        // The device's only state is its trigger, so creating one for each write needs no lock.
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
