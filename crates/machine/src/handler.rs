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
    /// The write for which the vCPU is held.
    held: Option<Held>,
}

/// Where the device is that holds a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Port(u16),
    Mmio(u64),
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

    /// Every wake reaches every vCPU. The device that holds this one says whether it was meant.
    fn is_held(&mut self) -> bool {
        match self.held {
            Some(Held::Port(port)) => self.ports.is_holding(port.into()),
            Some(Held::Mmio(gpa)) => self.mmio.is_holding(gpa),
            None => false,
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<GuestEnd> {
        let flow = flow(self.ports.write(port.into(), data));
        if let Flow::Hold = flow {
            self.held = Some(Held::Port(port));
        }
        flow
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<GuestEnd> {
        let flow = flow(self.mmio.write(gpa, data));
        if let Flow::Hold = flow {
            self.held = Some(Held::Mmio(gpa));
        }
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmm_bus::Bus;
    use vmm_devices::{DebugConsole, Output};

    use super::*;

    #[test]
    fn vcpu_held_by_a_port_stays_until_that_device_has_room() {
        let output = Arc::new(Output::new().unwrap());
        let ports = Bus::new();
        ports.insert(0xe9, 1, Arc::new(DebugConsole::new(Arc::clone(&output)))).unwrap();
        let mut handler = BusHandler::new(ports.view(), Bus::new().view());
        // One byte less than the queue takes in peace.
        output.push(&vec![b'x'; (64 << 10) - 1]);
        let written = ExitHandler::<vmm_kvm::KvmVcpu>::port_out(&mut handler, 0xe9, b"!");
        assert_eq!(written, Flow::Hold);
        let mut is_held = || ExitHandler::<vmm_kvm::KvmVcpu>::is_held(&mut handler);
        assert!(is_held(), "another device's wake isn't for it");
        output.take(&mut vec![0; 64 << 10]);
        assert!(!is_held());
    }
}
