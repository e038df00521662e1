//! The debug console port, for early kernel output.

use std::io;
use std::sync::Arc;

use vmm_bus::{BusDevice, Outcome, Output};

use crate::{AtPort, BuiltDevice, LegacyKind, Place, Presence, Wiring};

/// The value that the port reads as, by which a guest detects it (Bochs, "port e9 hack"; QEMU, isa-debugcon).
const PRESENT: u8 = 0xe9;

/// A port that prints what is written to it and reads as 0xe9, like Bochs's port 0xe9 and QEMU's isa-debugcon.
#[derive(Debug)]
pub struct DebugConsole(Arc<Output>);

impl DebugConsole {
    /// Prints to `output`. A [`Uart`](crate::Uart) may share it; the bytes of both then stay in order.
    pub fn new(output: Arc<Output>) -> Self {
        Self(output)
    }
}

impl LegacyKind for DebugConsole {
    const NAME: &'static str = "debug console";
    const PRESENCE: Presence = Presence::Listed("debug-console");
    type Config = AtPort;

    fn place(config: &AtPort) -> Place {
        Place::ports_from(config.port, 1)
    }

    fn build(_config: &AtPort, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        // What it printed is in the machine's output.
        Ok(BuiltDevice::new(Self::new(wiring.output())).without_state())
    }
}

impl BusDevice for DebugConsole {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(PRESENT);
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Outcome {
        self.0.push(data);
        self.0.outcome()
    }

    fn is_holding(&self) -> bool {
        self.0.is_holding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_console_prints_and_reads_as_present() {
        let output = Arc::new(Output::new().unwrap());
        let console = DebugConsole::new(Arc::clone(&output));
        assert_eq!(console.write(0, b"!"), Outcome::Done);
        let mut bytes = [0; 2];
        assert_eq!((output.take(&mut bytes).len, bytes[0]), (1, b'!'));
        let mut read = [0];
        console.read(0, &mut read);
        assert_eq!(read, [0xe9]);
    }

    #[test]
    fn debug_console_full_output_holds_the_guest() {
        let console = DebugConsole::new(Arc::new(Output::new().unwrap()));
        let flood = vec![b'x'; 64 << 10];
        assert_eq!(console.write(0, &flood), Outcome::Hold);
        assert!(console.is_holding());
    }
}
