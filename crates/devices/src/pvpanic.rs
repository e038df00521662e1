//! The port on which a guest reports a panic.

use std::io;
use std::ops::Range;

use vmm_acpi::io_device;
use vmm_bus::{BusDevice, Outcome, SystemEvent};
use vmm_config::NoFields;

use crate::{AcpiParts, BuiltDevice, LegacyKind, Place, Presence, Wiring};

/// QEMU's port for it.
const PORTS: Range<u64> = 0x505..0x506;

/// PVPANIC_PANICKED: the guest's kernel has panicked and needs the host to handle it (QEMU, docs/specs/pvpanic.rst).
const PANICKED: u8 = 1;
/// PVPANIC_CRASH_LOADED: the guest's kernel has panicked, and continues in a crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// QEMU's pvpanic device, which Linux detects by the ACPI id QEMU0001.
#[derive(Debug, Default)]
pub struct PvPanic;

impl LegacyKind for PvPanic {
    const NAME: &'static str = "pvpanic";
    /// Guests detect it only by ACPI.
    const PRESENCE: Presence = Presence::WithAcpi;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(PORTS)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.devices.push(io_device("PEVT", "QEMU0001", 0, [place.ports.clone()], None)?);
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        // It reads as a constant, and a write takes effect at once.
        Ok(BuiltDevice::new(Self).without_state())
    }
}

impl BusDevice for PvPanic {
    /// Reads as the supported events.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(events) = data.first_mut() {
            *events = PANICKED | CRASH_LOADED;
        }
    }

    /// Ends the machine, unless the guest continues in a crash kernel.
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
    fn pvpanic_reads_as_its_supported_events() {
        let mut events = [0xff];
        PvPanic.read(0, &mut events);
        assert_eq!(events, [0b11]);
    }

    #[test]
    fn pvpanic_panic_ends_the_machine() {
        assert_eq!(PvPanic.write(0, &[1]), Outcome::End(SystemEvent::Panic));
    }

    #[test]
    fn pvpanic_crash_kernel_continues() {
        assert_eq!(PvPanic.write(0, &[2]), Outcome::Done);
    }
}
