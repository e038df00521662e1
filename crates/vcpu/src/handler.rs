//! Who answers the guest's accesses.

use vmm_bus::{BusView, Outcome};

/// Answers a guest's port and MMIO accesses. Each default is what an empty machine does: reads give ones,
/// writes are lost.
///
/// `data` has the width of one access: 1, 2 or 4 bytes at a port, 1 to 8 at an address. A string
/// instruction arrives as one call for each element.
pub trait ExitHandler: Send {
    /// `in`: fill `data`, which holds ones.
    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        let _ = (port, data);
    }
    /// `out`.
    fn port_out(&mut self, port: u16, data: &[u8]) -> Outcome {
        let _ = (port, data);
        Outcome::Done
    }
    /// A load: fill `data`, which holds ones.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let _ = (gpa, data);
    }
    /// A store.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Outcome {
        let _ = (gpa, data);
        Outcome::Done
    }
}

/// Answers from two buses, one for ports and one for MMIO.
#[derive(Debug)]
pub struct BusHandler {
    /// Ports, 0 to 0xffff.
    pub ports: BusView,
    /// Guest-physical addresses without memory.
    pub mmio: BusView,
}

impl ExitHandler for BusHandler {
    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }
    fn port_out(&mut self, port: u16, data: &[u8]) -> Outcome {
        self.ports.write(port.into(), data)
    }
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Outcome {
        self.mmio.write(gpa, data)
    }
}
