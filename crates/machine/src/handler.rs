//! A machine's answers to its guest's exits: its buses.

use vmm_bus::{BusView, Outcome, Power};
use vmm_vcpu::{ExitHandler, Flow};

/// How a guest ends its machine by what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It changed the power state.
    Power(Power),
    /// It said that it has panicked.
    Panicked,
    /// It ended the monitor, with this exit code.
    Exit(u8),
}

/// Answers from two buses.
#[derive(Debug)]
pub struct BusHandler {
    /// Ports, 0 to 0xffff.
    pub ports: BusView,
    /// Guest-physical addresses without memory.
    pub mmio: BusView,
}

fn flow(outcome: Outcome) -> Flow<GuestEnd> {
    match outcome {
        Outcome::Done => Flow::Enter,
        Outcome::Hold => Flow::Hold,
        Outcome::Power(power) => Flow::Stop(GuestEnd::Power(power)),
        Outcome::Panicked => Flow::Stop(GuestEnd::Panicked),
        Outcome::Exit(code) => Flow::Stop(GuestEnd::Exit(code)),
    }
}

impl<C> ExitHandler<C> for BusHandler {
    type Stop = GuestEnd;

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<GuestEnd> {
        flow(self.ports.write(port.into(), data))
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<GuestEnd> {
        flow(self.mmio.write(gpa, data))
    }
}
