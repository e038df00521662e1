//! The pseudo serial port, which has no registers.

use std::io;
use std::sync::Arc;

use vmm_bus::{BusDevice, Outcome, Output};

use crate::{AtPort, BuiltDevice, LegacyKind, Place, Presence, Wiring};

/// A port that immediately sends each byte written to it, as introductory texts on writing a monitor emulate a serial port. It
/// reads as all ones, like an unclaimed port.
#[derive(Debug)]
pub struct PseudoSerial(Arc<Output>);

impl PseudoSerial {
    /// Sends to `output`. A [`Uart`](crate::Uart) may share it; the bytes of both then stay in order.
    pub fn new(output: Arc<Output>) -> Self {
        Self(output)
    }
}

impl LegacyKind for PseudoSerial {
    const NAME: &'static str = "pseudo serial port";
    const PRESENCE: Presence = Presence::Listed("pseudo-serial");
    type Config = AtPort;

    fn place(config: &AtPort) -> Place {
        Place::ports_from(config.port, 1)
    }

    fn build(_config: &AtPort, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        // What it sent is in the machine's output.
        Ok(BuiltDevice::new(Self::new(wiring.output())).without_state())
    }
}

impl BusDevice for PseudoSerial {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

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
    fn pseudo_serial_full_output_holds_the_guest_until_taken() {
        let output = Arc::new(Output::new().unwrap());
        let port = PseudoSerial::new(Arc::clone(&output));
        assert_eq!(port.write(0, &vec![b'x'; 64 << 10]), Outcome::Hold);
        assert!(port.is_holding());
        output.take(&mut vec![0; 64 << 10]);
        assert!(!port.is_holding());
    }

    #[test]
    fn pseudo_serial_sends_and_reads_as_unclaimed() {
        let output = Arc::new(Output::new().unwrap());
        let port = PseudoSerial::new(Arc::clone(&output));
        assert_eq!(port.write(0, b"H"), Outcome::Done);
        let mut bytes = [0; 2];
        assert_eq!((output.take(&mut bytes).len, bytes[0]), (1, b'H'));
        let mut read = [0xff];
        port.read(0, &mut read);
        assert_eq!(read, [0xff]);
    }
}
