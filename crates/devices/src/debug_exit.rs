//! The debug exit port, with which a guest exits the monitor.

use std::io;

use vmm_bus::{BusDevice, Outcome, SystemEvent};

use crate::{AtPort, BuiltDevice, LegacyKind, Place, Presence, Wiring};

/// As in QEMU when run by kvm-unit-tests (iosize=0x4).
const PORT_COUNT: u64 = 4;

/// QEMU's isa-debug-exit: writing `v` exits the monitor with code `(v << 1) | 1`, truncated to the eight bits of an exit code.
/// No value of `v` results in 0.
#[derive(Debug, Default)]
pub struct DebugExit;

impl LegacyKind for DebugExit {
    const NAME: &'static str = "debug exit";
    const PRESENCE: Presence = Presence::Listed("debug-exit");
    type Config = AtPort;

    fn place(config: &AtPort) -> Place {
        Place::ports_from(config.port, PORT_COUNT)
    }

    fn build(_config: &AtPort, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        // A write ends the machine.
        Ok(BuiltDevice::new(Self).without_state())
    }
}

impl BusDevice for DebugExit {
    /// Reads as zeros, as in QEMU.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Outcome {
        let lowest = data.first().copied().unwrap_or(0);
        Outcome::End(SystemEvent::Exit((lowest << 1) | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_exit_doubles_and_adds_one() {
        assert_eq!(DebugExit.write(0, &[0]), Outcome::End(SystemEvent::Exit(1)));
        assert_eq!(DebugExit.write(0, &[21]), Outcome::End(SystemEvent::Exit(43)));
    }

    #[test]
    fn debug_exit_code_is_truncated_to_eight_bits() {
        assert_eq!(DebugExit.write(0, &[0x80, 1, 0, 0]), Outcome::End(SystemEvent::Exit(1)));
    }
}
