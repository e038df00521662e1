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
    ports: BusView,
    mmio: BusView,
    /// The address of the write for which the vCPU is held.
    held: Option<u64>,
}

impl BusHandler {
    /// `ports` are those of 0 to 0xffff, `mmio` the guest-physical addresses without memory.
    pub fn new(ports: BusView, mmio: BusView) -> Self {
        Self { ports, mmio, held: None }
    }
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

    /// A device on the port bus that holds a vCPU has its own wake only.
    fn is_held(&mut self) -> bool {
        self.held.is_some_and(|gpa| self.mmio.is_holding(gpa))
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<GuestEnd> {
        let flow = flow(self.ports.write(port.into(), data));
        if let Flow::Hold = flow {
            self.held = None;
        }
        flow
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<GuestEnd> {
        let flow = flow(self.mmio.write(gpa, data));
        if let Flow::Hold = flow {
            self.held = Some(gpa);
        }
        flow
    }
}
