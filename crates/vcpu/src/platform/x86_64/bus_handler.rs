//! A handler that passes accesses to the devices on two buses.

use vmm_bus::{BusView, Outcome, SystemEvent};

use super::handler::ExitHandler;
use crate::Flow;

/// Passes port and MMIO accesses to the devices on two [buses](vmm_bus::Bus), and applies their [`Outcome`]s to the vCPU: a hold
/// until [`VcpuThread::wake`](crate::VcpuThread::wake), or a stop with the device's [`SystemEvent`].
///
/// Each vCPU has its own, with views of the same buses. To handle other exits, wrap it in another handler.
///
/// ```
/// use vmm_bus::Bus;
/// use vmm_devices::{I8042, Rtc};
/// use vmm_vcpu::BusHandler;
///
/// let (ports, mmio) = (Bus::new(), Bus::new());
/// ports.insert(0x60..0x65, I8042)?;
/// ports.insert(0x70..0x72, Rtc::default())?;
/// let handler_of_one_vcpu = BusHandler::new(ports.view(), mmio.view());
/// # Ok::<(), vmm_bus::Error>(())
/// ```
#[derive(Debug)]
pub struct BusHandler {
    ports: BusView,
    mmio: BusView,
    /// The address of the write that holds the vCPU.
    held: Option<DeviceAddress>,
}

/// The address of the device that holds a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceAddress {
    Port(u16),
    Mmio(u64),
}

impl BusHandler {
    /// `ports` has the I/O ports, 0 to 0xffff, and `mmio` the guest-physical addresses without memory.
    pub fn new(ports: BusView, mmio: BusView) -> Self {
        Self { ports, mmio, held: None }
    }

    /// Applies the outcome of a write to the vCPU.
    fn apply(&mut self, outcome: Outcome, at: DeviceAddress) -> Flow<SystemEvent> {
        match outcome {
            Outcome::Done => Flow::Enter,
            Outcome::Hold => {
                self.held = Some(at);
                Flow::Hold
            }
            Outcome::End(event) => Flow::Stop(event),
        }
    }
}

impl<C> ExitHandler<C> for BusHandler {
    type Stop = SystemEvent;

    /// A wake may be meant for another vCPU, so the device that holds this one is asked.
    fn is_held(&mut self) -> bool {
        match self.held {
            Some(DeviceAddress::Port(port)) => self.ports.is_holding(port.into()),
            Some(DeviceAddress::Mmio(gpa)) => self.mmio.is_holding(gpa),
            None => false,
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<SystemEvent> {
        let outcome = self.ports.write(port.into(), data);
        self.apply(outcome, DeviceAddress::Port(port))
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<SystemEvent> {
        let outcome = self.mmio.write(gpa, data);
        self.apply(outcome, DeviceAddress::Mmio(gpa))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmm_bus::{Bus, Output};
    use vmm_devices::DebugConsole;

    use super::*;

    #[test]
    fn vcpu_held_by_a_port_stays_until_that_device_has_room() {
        let output = Arc::new(Output::new().unwrap());
        let ports = Bus::new();
        ports.insert(0xe9..0xea, DebugConsole::new(Arc::clone(&output))).unwrap();
        let mut handler = BusHandler::new(ports.view(), Bus::new().view());
        // One byte less than the length at which the queue holds a vCPU.
        output.push(&vec![b'x'; (64 << 10) - 1]);
        let written = ExitHandler::<vmm_kvm::KvmVcpu>::port_out(&mut handler, 0xe9, b"!");
        assert_eq!(written, Flow::Hold);
        let mut is_held = || ExitHandler::<vmm_kvm::KvmVcpu>::is_held(&mut handler);
        assert!(is_held(), "a wake by another device doesn't release it");
        output.take(&mut vec![0; 64 << 10]);
        assert!(!is_held());
    }
}
