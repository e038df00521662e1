//! The exit handlers and the device that count the guest's accesses.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_bus::{Bus, BusDevice, Error, Outcome, SystemEvent};
use vmm_vcpu::{BusHandler, ExitHandler, Flow, Summary, Trace, TracedExit};

use crate::workload::{MMIO_GPA, PORT};

/// Counts accesses in the call-backs, without a bus.
#[derive(Debug, Default)]
pub(crate) struct CallBack {
    /// Number of elements after which it stops.
    pub(crate) left: u64,
}

impl CallBack {
    fn count(&mut self, elements: u64) -> Flow<()> {
        self.left = self.left.saturating_sub(elements);
        if self.left == 0 { Flow::Stop(()) } else { Flow::Enter }
    }
}

impl ExitHandler for CallBack {
    type Stop = ();

    fn outb(&mut self, _port: u16, _value: u8) -> Flow<()> {
        self.count(1)
    }

    fn string_out(&mut self, _port: u16, width: usize, data: &[u8]) -> Flow<()> {
        self.count((data.len() / width) as u64)
    }

    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) -> Flow<()> {
        self.count(1)
    }
}

/// A device that counts the writes to it.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    left: AtomicU64,
}

impl Counter {
    /// Ends the guest after so many further writes.
    pub(crate) fn stop_after(&self, writes: u64) {
        self.left.store(writes, Ordering::Relaxed);
    }
}

impl BusDevice for Counter {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, _data: &[u8]) -> Outcome {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1 => Outcome::End(SystemEvent::Exit(0)),
            _ => Outcome::Done,
        }
    }
}

/// A device that occupies a range on the bus.
struct Neighbour;

impl BusDevice for Neighbour {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, _data: &[u8]) -> Outcome {
        Outcome::Done
    }
}

/// The addresses of each neighbour, which are ports of a PC: keyboard controller, clock, debug console, debug exit, COM1.
/// The MMIO bus has the same ranges, far below the counter, so that a lookup there takes as many steps.
const NEIGHBOURS: [Range<u64>; 5] = [0x60..0x65, 0x70..0x72, 0xe9..0xea, 0xf4..0xf8, 0x3f8..0x400];

/// The handler of whole machines, with `counter` at the port and at the address to which the guests write.
pub(crate) fn bus_handler(counter: &Arc<Counter>) -> Result<BusHandler, Error> {
    let (ports, mmio) = (Bus::new(), Bus::new());
    for (bus, at, len) in [(&ports, PORT.into(), 1), (&mmio, MMIO_GPA, 0x1000)] {
        NEIGHBOURS.into_iter().try_for_each(|range| bus.insert(range, Neighbour))?;
        bus.insert(at..at + len, Arc::clone(counter))?;
    }
    Ok(BusHandler::new(ports.view(), mmio.view()))
}

/// Adds every exit to a summary, as the monitor does for `--trace-exits=summary`.
pub(crate) struct SummaryTrace<'a>(pub(crate) &'a mut Summary);

impl Trace for SummaryTrace<'_> {
    fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible> {
        self.0.add(exit);
        Flow::Enter
    }

    fn wants_instruction_pointer(&self) -> bool {
        false
    }
}
