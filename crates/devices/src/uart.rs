//! A 16550 UART based on vm-superio, with flow control in both directions.

mod state;

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_acpi::io_device;
use vmm_bus::EventFd;
use vmm_bus::{BusDevice, IrqLine, Outcome, Output};
use vmm_config::NoFields;

use crate::{AcpiParts, BuiltDevice, LegacyKind, Place, Presence, SerialLine, Wiring};
pub use state::UartState;

/// Offset of the interrupt enable register, whose bit 0 enables the received data interrupt. While bit 7 of
/// the line control register is set, the divisor's high byte is at this offset.
const INTERRUPT_ENABLE: u8 = 1;
const RECEIVED_DATA_ENABLED: u8 = 1;
const TRANSMITTER_EMPTY_ENABLED: u8 = 1 << 1;
const ALL_INTERRUPTS: u8 = 0b1111;
/// Offset of the interrupt identification register (read), and its value while received data is pending and
/// that interrupt is enabled: FIFOs enabled (bits 7:6), received data (bits 3:0).
const INTERRUPT_IDENTIFICATION: u64 = 2;
const RECEIVED_DATA: u8 = 0xc4;
/// Its value while no interrupt is pending.
const NO_INTERRUPT: u8 = 0xc1;
/// Offset of the receive buffer (read) and the transmitter (write).
const DATA_REGISTER: u64 = 0;
/// Offset of the line control register, whose bit 7 maps the divisor over the first two registers.
const LINE_CONTROL: u8 = 3;
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Offset of the line status register, whose bit 0 is set while received data is available.
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;
/// Offset of the modem control register, whose bit 4 enables loopback.
const MODEM_CONTROL: u64 = 4;
const LOOPBACK: u8 = 1 << 4;

/// A guest that reads the line status this often without finding data, and without accessing other registers except to read data,
/// is taken to poll for input. A driver that prints reads the status once or twice per byte written.
const POLLS: u8 = 16;

/// A 16550 UART, a machine's COM1.
///
/// Output goes to [`output`](Self::output), which holds the guest when it is full. Input comes from
/// [`send`](Self::send), which accepts what fits into the 64-byte receive FIFO; if that isn't all,
/// [`wants_input`](Self::wants_input) signals when to retry. No data is lost in either direction.
///
/// Input is accepted once the guest has enabled the received data interrupt or polls the line status. A
/// driver that is starting reads the receive buffer to empty it, so that earlier input would be lost.
pub struct Uart {
    registers: Mutex<Registers>,
    output: Arc<Output>,
    wants_input: EventFd,
}

struct Registers {
    serial: Serial<Irq, NoEvents, Sink>,
    /// The host side has more input than fitted.
    input_waits: bool,
    /// Reads of the line status that found no data since the last access to a register other than the receive buffer.
    polls: u8,
    /// The guest is ready for input.
    listens: bool,
}

impl Registers {
    fn read(&mut self, register: u64) -> u8 {
        let byte = match register {
            INTERRUPT_IDENTIFICATION => self.interrupt_identification(),
            _ => self.serial.read(register as u8),
        };
        self.count_polls(register, byte);
        byte
    }

    /// Data found by a read resets the count: Linux, when it measures the FIFO in loopback, alternates reads of status and data
    /// as a polling guest does, but finds data each time.
    fn count_polls(&mut self, register: u64, byte: u8) {
        if register == u64::from(LINE_STATUS) {
            self.polls = if byte & DATA_READY == 0 { self.polls.saturating_add(1) } else { 0 };
        } else if register != DATA_REGISTER {
            self.polls = 0;
        }
        self.listens |= self.polls >= POLLS;
    }

    /// A 16550 identifies an interrupt only while it is enabled. vm-superio keeps identifying the transmitter-empty interrupt
    /// after a driver has sent its last byte and disabled it, so that Linux would run its handler once more for each burst.
    fn interrupt_identification(&mut self) -> u8 {
        if self.has_received_data_interrupt() {
            return RECEIVED_DATA;
        }
        let shown = self.serial.read(INTERRUPT_IDENTIFICATION as u8);
        if self.is_enabled(TRANSMITTER_EMPTY_ENABLED) { shown } else { NO_INTERRUPT }
    }

    /// Whether data is available and its interrupt is enabled.
    ///
    /// On a 16550 the interrupt stays pending until the FIFO is empty. In vm-superio the first byte read clears
    /// it. Linux reads at most 256 bytes per interrupt; it would leave the rest in the FIFO, find no interrupt
    /// pending, and never read again.
    fn has_received_data_interrupt(&mut self) -> bool {
        let is_ready = self.serial.read(LINE_STATUS) & DATA_READY != 0;
        is_ready && self.is_enabled(RECEIVED_DATA_ENABLED)
    }

    /// Whether `interrupt` is enabled. `false` while the divisor hides the register.
    fn is_enabled(&mut self, interrupt: u8) -> bool {
        let divisor = self.serial.read(LINE_CONTROL) & DIVISOR_ACCESS != 0;
        !divisor && self.serial.read(INTERRUPT_ENABLE) & interrupt != 0
    }

    /// Handles a write to the interrupt enable register. Setting all four bits is a probe: Linux writes them to
    /// see whether they read back, and then clears them.
    fn interrupts_enabled(&mut self, enabled: u8) {
        let is_probe = enabled & ALL_INTERRUPTS == ALL_INTERRUPTS;
        self.listens |= self.is_enabled(RECEIVED_DATA_ENABLED) && !is_probe;
    }

    /// Number of bytes that the receive FIFO would accept.
    fn room(&mut self) -> usize {
        if self.listens { self.serial.fifo_capacity() } else { 0 }
    }
}

/// The interrupt line, as a trigger for vm-superio.
struct Irq(IrqLine);

impl Trigger for Irq {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

/// Ignores vm-superio's events: the room in its FIFO is all that is needed.
struct NoEvents;

impl SerialEvents for NoEvents {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {}
}

/// The bytes transmitted by one register write. They are moved to [`Output`] after the lock of the registers
/// is released, so that the two locks are never held together.
#[derive(Default)]
struct Sink {
    bytes: [u8; SENT_MAX_LEN],
    len: usize,
}

/// A register write transmits at most one byte.
const SENT_MAX_LEN: usize = 1;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = &mut self.bytes[self.len..];
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
        Ok(len)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Uart {
    /// COM1's ports.
    pub const COM1_PORTS: Range<u64> = 0x3f8..0x400;
    /// COM1's global system interrupt.
    pub const COM1_GSI: u32 = 4;

    /// Creates a UART in its reset state. Its interrupts go to `irq`.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(irq: IrqLine) -> io::Result<Self> {
        Self::with_output(irq, Arc::new(Output::new()?))
    }

    /// Like [`new`](Self::new), with an existing output queue, which may be shared or contain the output of an earlier machine.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn with_output(irq: IrqLine, output: Arc<Output>) -> io::Result<Self> {
        let serial = Serial::with_events(Irq(irq), NoEvents, Sink::default());
        Ok(Self {
            registers: Mutex::new(Registers { serial, input_waits: false, polls: 0, listens: false }),
            output,
            wants_input: EventFd::new()?,
        })
    }

    /// The queue of bytes that the guest has written.
    pub fn output(&self) -> &Arc<Output> {
        &self.output
    }

    /// Number of bytes that [`send`](Self::send) would accept now. If 0, [`wants_input`](Self::wants_input)
    /// becomes readable when this changes.
    pub fn room(&self) -> usize {
        let mut registers = self.registers();
        let room = registers.room();
        registers.input_waits |= room == 0;
        room
    }

    /// Sends `bytes` to the guest and returns how many were accepted. This is 0 while the guest isn't ready for
    /// input or has enabled loopback. If not all were accepted, [`wants_input`](Self::wants_input) becomes
    /// readable when there is room for more.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut registers = self.registers();
        let len = registers.room().min(bytes.len());
        // Fails if the FIFO is full, or the interrupt line can't be triggered, which would take 2^64 edges.
        let taken = registers.serial.enqueue_raw_bytes(&bytes[..len]).unwrap_or(0);
        registers.input_waits |= taken < bytes.len();
        taken
    }

    /// Sends all of `bytes` to the guest, blocking while there is no room. For a host side with its own thread, which must be the
    /// only reader of [`wants_input`](Self::wants_input).
    ///
    /// # Errors
    /// The host is out of memory.
    pub fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            rest = &rest[self.send(rest)..];
            if rest.is_empty() {
                return Ok(());
            }
            self.wants_input.wait()?;
        }
    }

    /// A non-blocking eventfd, readable when the guest has made room for input that didn't fit before.
    pub fn wants_input(&self) -> &EventFd {
        &self.wants_input
    }

    /// The bytes that were sent but not read by the guest, for the machine that follows a reset.
    pub fn unread(&self) -> Vec<u8> {
        let registers = self.registers();
        let is_loopback = registers.serial.state().modem_control & LOOPBACK != 0;
        // In loopback the bytes may be the guest's own.
        if is_loopback { Vec::new() } else { registers.serial.state().in_buffer }
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("no panic while it is held")
    }

    /// Writes one register and returns the transmitted bytes.
    fn write_register(&self, register: u64, byte: u8) -> Sink {
        let mut registers = self.registers();
        // Fails if the interrupt line can't be triggered, which would take 2^64 edges.
        let _ = registers.serial.write(register as u8, byte);
        registers.polls = 0;
        if register == u64::from(INTERRUPT_ENABLE) {
            registers.interrupts_enabled(byte);
        }
        if register == MODEM_CONTROL || register == u64::from(INTERRUPT_ENABLE) {
            // The guest may have left loopback, in which no input is accepted, or become ready for input.
            self.offer_room(&mut registers);
        }
        std::mem::take(registers.serial.writer_mut())
    }

    /// Signals the host side if it waits for room and there is enough.
    fn offer_room(&self, registers: &mut Registers) {
        // Half of the FIFO, so that a guest that reads byte by byte doesn't cause a signal per byte.
        if registers.input_waits && registers.room() >= 32 {
            registers.input_waits = false;
            // It can't fail: the eventfd's counter would have to reach 2^64 - 1.
            let _ = self.wants_input.write(1);
        }
    }
}

impl LegacyKind for Uart {
    const NAME: &'static str = "uart com1";
    const PRESENCE: Presence = Presence::Always;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(Self::COM1_PORTS).with_gsi(Self::COM1_GSI)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.devices.push(io_device("COM1", "PNP0501", 0, [place.ports.clone()], place.gsi)?);
        Ok(())
    }

    fn build(_config: &NoFields, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        let uart = Arc::new(Self::with_output(wiring.interrupt()?, wiring.output())?);
        let built = BuiltDevice::new(Arc::clone(&uart)).with_state(Arc::clone(&uart) as _);
        Ok(built.with_serial(uart))
    }
}

impl SerialLine for Uart {
    fn output(&self) -> &Output {
        &self.output
    }

    fn room(&self) -> usize {
        Self::room(self)
    }

    fn send(&self, bytes: &[u8]) -> usize {
        Self::send(self, bytes)
    }

    fn unread(&self) -> Vec<u8> {
        Self::unread(self)
    }

    fn wants_input(&self) -> &EventFd {
        &self.wants_input
    }
}

impl BusDevice for Uart {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut registers = self.registers();
        for (register, byte) in (offset..).zip(data) {
            *byte = registers.read(register);
        }
        self.offer_room(&mut registers);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let mut outcome = Outcome::Done;
        for (register, &byte) in (offset..).zip(data) {
            let sent = self.write_register(register, byte);
            if sent.len > 0 {
                self.output.push(&sent.bytes[..sent.len]);
                outcome = self.output.outcome();
            }
        }
        outcome
    }

    fn is_holding(&self) -> bool {
        self.output.is_holding()
    }
}

impl std::fmt::Debug for Uart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uart").field("output", &self.output).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
