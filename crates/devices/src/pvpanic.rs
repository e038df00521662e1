//! The port at which a guest says that it has panicked.

use vmm_bus::{BusDevice, Outcome, SystemEvent};

/// PVPANIC_PANICKED: the guest's kernel has panicked and won't handle that itself (QEMU, docs/specs/pvpanic.rst).
const PANICKED: u8 = 1;
/// PVPANIC_CRASH_LOADED: it has panicked, and goes on in a crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// QEMU's pvpanic device, which Linux finds by the ACPI id QEMU0001. Give it one port.
#[derive(Debug, Default)]
pub struct PvPanic;

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
