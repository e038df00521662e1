//! The port at which a guest says that it has panicked.

use std::io;
use std::ops::Range;

use vmm_acpi::io_device;
use vmm_bus::{BusDevice, Outcome, SystemEvent};

use crate::{AcpiParts, Built, LegacyKind, NoFields, Place, Presence, Wiring};

/// Where QEMU has it.
const PORTS: Range<u64> = 0x505..0x506;

/// PVPANIC_PANICKED: the guest's kernel has panicked and won't handle that itself (QEMU, docs/specs/pvpanic.rst).
const PANICKED: u8 = 1;
/// PVPANIC_CRASH_LOADED: it has panicked, and goes on in a crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// QEMU's pvpanic device, which Linux finds by the ACPI id QEMU0001.
#[derive(Debug, Default)]
pub struct PvPanic;

impl LegacyKind for PvPanic {
    const NAME: &'static str = "pvpanic";
    /// A guest learns of it from ACPI alone.
    const PRESENCE: Presence = Presence::WithAcpi;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(PORTS)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.devices.push(io_device("PEVT", "QEMU0001", 0, [place.ports.clone()], None)?);
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<Built> {
        Ok(Built::new(Self))
    }
}

impl BusDevice for PvPanic {
    /// The events that may be written.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(events) = data.first_mut() {
            *events = PANICKED | CRASH_LOADED;
        }
    }

    /// A guest that goes on in a crash kernel is left to it.
    fn write(&self, _offset: u64, data: &[u8]) -> Outcome {
        match data.first() {
            Some(events) if events & PANICKED != 0 => Outcome::End(SystemEvent::Panic),
            _ => Outcome::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pvpanic_takes_the_events_that_it_names() {
        let mut events = [0xff];
        PvPanic.read(0, &mut events);
        assert_eq!(events, [0b11]);
    }

    #[test]
    fn pvpanic_panic_is_told() {
        assert_eq!(PvPanic.write(0, &[1]), Outcome::End(SystemEvent::Panic));
    }

    #[test]
    fn pvpanic_crash_kernel_goes_on() {
        assert_eq!(PvPanic.write(0, &[2]), Outcome::Done);
    }
}
