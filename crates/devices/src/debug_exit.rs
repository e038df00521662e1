//! A port with which a guest ends the monitor.

use std::io;

use vmm_bus::{BusDevice, Outcome, SystemEvent};

use crate::{AtPort, Built, LegacyKind, Place, Presence, Wiring};

/// As kvm-unit-tests sets it up in QEMU (iosize=0x4).
const PORT_COUNT: u64 = 4;

/// QEMU's isa-debug-exit: a write of `v` ends the monitor with exit code `(v << 1) | 1`, of which a process keeps eight bits.
/// So no value gives 0.
#[derive(Debug, Default)]
pub struct DebugExit;

impl LegacyKind for DebugExit {
    const NAME: &'static str = "debug exit";
    const PRESENCE: Presence = Presence::Listed("debug-exit");
    type Config = AtPort;

    fn place(config: &AtPort) -> Place {
        Place::ports_from(config.port, PORT_COUNT)
    }

    fn build(_config: &AtPort, _wiring: &mut Wiring) -> io::Result<Built> {
        Ok(Built::new(Self))
    }
}

impl BusDevice for DebugExit {
    /// QEMU reads zeros here.
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
    fn debug_exit_keeps_the_eight_bits_that_a_process_can_tell() {
        assert_eq!(DebugExit.write(0, &[0x80, 1, 0, 0]), Outcome::End(SystemEvent::Exit(1)));
    }
}
