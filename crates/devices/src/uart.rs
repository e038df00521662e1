//! A 16550 UART: vm-superio's registers, with flow control in both directions.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_acpi::io_device;
use vmm_bus::EventFd;
use vmm_bus::{BusDevice, IrqLine, Outcome, Output};

use crate::{AcpiParts, Built, LegacyKind, NoFields, Place, Presence, SerialLine, Wiring};

/// Offset of the interrupt enable register, whose bit 0 enables the received data interrupt. With bit 7 of
/// the line control register set, the divisor's high byte is there instead.
const INTERRUPT_ENABLE: u8 = 1;
const RECEIVED_DATA_ENABLED: u8 = 1;
const TRANSMITTER_EMPTY_ENABLED: u8 = 1 << 1;
const ALL_INTERRUPTS: u8 = 0b1111;
/// Offset of the interrupt identification register (read), and what it reads while data waits and its
/// interrupt is enabled: FIFOs are on (bits 7:6), received data (bits 3:0).
const INTERRUPT_IDENTIFICATION: u64 = 2;
const RECEIVED_DATA: u8 = 0xc4;
/// What it reads while there is no interrupt.
const NO_INTERRUPT: u8 = 0xc1;
/// Offset of the receive buffer and the transmitter.
const DATA_REGISTER: u64 = 0;
/// Offset of the line control register, whose bit 7 shows the divisor instead of the first two registers.
const LINE_CONTROL: u8 = 3;
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Offset of the line status register, whose bit 0 is set while data waits.
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;
/// Offset of the modem control register, whose bit 4 switches the loopback.
const MODEM_CONTROL: u64 = 4;
const LOOPBACK: u8 = 1 << 4;

/// Reads of the line status without data, and without another access but for data, that make a guest one that polls for input. A
/// driver that prints reads it once or twice for each byte that it writes.
const POLLS: u8 = 16;

/// A 16550 UART, which a machine has as COM1.
///
/// Output goes to [`output`](Self::output), which holds the guest when it is full. Input comes by
/// [`send`](Self::send), which takes what fits into the receive FIFO of 64 bytes; when something didn't,
/// [`wants_input`](Self::wants_input) tells when to try again. Nothing is lost in either direction.
///
/// Input is taken once the guest listens: it has enabled the received data interrupt, or polls the line
/// status. A driver that starts reads the receive buffer to empty it, and what came before would be lost.
pub struct Uart {
    registers: Mutex<Registers>,
    output: Arc<Output>,
    wants_input: EventFd,
}

struct Registers {
    serial: Serial<Irq, NoWord, Sink>,
    /// The host side has more than fitted.
    input_waits: bool,
    /// Reads of the line status in which the guest found no data, since it did anything else but read data.
    polls: u8,
    /// The guest has begun to take input.
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

    /// Linux reads data in turn with its status too when it measures the FIFO in the loopback, and has data each time.
    fn count_polls(&mut self, register: u64, byte: u8) {
        if register == u64::from(LINE_STATUS) {
            self.polls = if byte & DATA_READY == 0 { self.polls.saturating_add(1) } else { 0 };
        } else if register != DATA_REGISTER {
            self.polls = 0;
        }
        self.listens |= self.polls >= POLLS;
    }

    /// A 16550 shows an interrupt only while it is enabled. vm-superio goes on showing the one of the empty transmitter after
    /// a driver has sent its last byte and disabled it, and Linux then goes through its handler once more for each burst.
    fn interrupt_identification(&mut self) -> u8 {
        if self.has_received_data_interrupt() {
            return RECEIVED_DATA;
        }
        let shown = self.serial.read(INTERRUPT_IDENTIFICATION as u8);
        if self.is_enabled(TRANSMITTER_EMPTY_ENABLED) { shown } else { NO_INTERRUPT }
    }

    /// Whether data waits and the guest wants to be interrupted for it.
    ///
    /// On a 16550 the interrupt stays until the FIFO is empty. In vm-superio it goes away with the first byte
    /// read; Linux, which reads 256 bytes per interrupt at most, would then leave the rest in the FIFO, find
    /// no interrupt, and never come back.
    fn has_received_data_interrupt(&mut self) -> bool {
        let waits = self.serial.read(LINE_STATUS) & DATA_READY != 0;
        waits && self.is_enabled(RECEIVED_DATA_ENABLED)
    }

    /// Whether this interrupt is enabled. While the divisor is there instead, the register can't be read, and none is.
    fn is_enabled(&mut self, interrupt: u8) -> bool {
        let divisor = self.serial.read(LINE_CONTROL) & DIVISOR_ACCESS != 0;
        !divisor && self.serial.read(INTERRUPT_ENABLE) & interrupt != 0
    }

    /// Takes note of a write to the interrupt enable register. All four bits at once are a probe: Linux writes
    /// them to see whether they read back, and takes them away again.
    fn interrupts_enabled(&mut self, enabled: u8) {
        let is_probe = enabled & ALL_INTERRUPTS == ALL_INTERRUPTS;
        self.listens |= self.is_enabled(RECEIVED_DATA_ENABLED) && !is_probe;
    }

    /// Bytes that the receive FIFO would take.
    fn room(&mut self) -> usize {
        if self.listens { self.serial.fifo_capacity() } else { 0 }
    }
}

/// The interrupt line, as vm-superio wants it.
struct Irq(IrqLine);

impl Trigger for Irq {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

/// vm-superio's word on what happened isn't needed: the room in its FIFO tells it all.
struct NoWord;

impl SerialEvents for NoWord {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {}
}

/// The transmitter's wire: what one write of a register sent. It is emptied into [`Output`] when the lock
/// of the registers is free again, so that neither lock is ever held with the other.
#[derive(Default)]
struct Sink {
    bytes: [u8; SENT_MAX_LEN],
    len: usize,
}

/// What one write of a register can send: one byte, and vm-superio flushes after each.
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

    /// A UART as after reset, whose interrupts go to `irq`.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(irq: IrqLine) -> io::Result<Self> {
        Self::with_output(irq, Arc::new(Output::new()?))
    }

    /// As [`new`](Self::new), with a queue that may hold something already, such as what another machine printed.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn with_output(irq: IrqLine, output: Arc<Output>) -> io::Result<Self> {
        let serial = Serial::with_events(Irq(irq), NoWord, Sink::default());
        Ok(Self {
            registers: Mutex::new(Registers { serial, input_waits: false, polls: 0, listens: false }),
            output,
            wants_input: EventFd::new()?,
        })
    }

    /// What the guest wrote.
    pub fn output(&self) -> &Arc<Output> {
        &self.output
    }

    /// Bytes that [`send`](Self::send) would take now. If 0, [`wants_input`](Self::wants_input) will tell
    /// when it is worth another look.
    pub fn room(&self) -> usize {
        let mut registers = self.registers();
        let room = registers.room();
        registers.input_waits |= room == 0;
        room
    }

    /// Types `bytes` at the guest and returns how many it took. If not all, or not even one because the
    /// guest doesn't listen or tests its UART in loopback, [`wants_input`](Self::wants_input) will tell when
    /// to go on.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut registers = self.registers();
        let len = registers.room().min(bytes.len());
        // Err is a full FIFO, or an interrupt line that can't be triggered, which would take 2^64 edges.
        let taken = registers.serial.enqueue_raw_bytes(&bytes[..len]).unwrap_or(0);
        registers.input_waits |= taken < bytes.len();
        taken
    }

    /// Types all of `bytes` at the guest, and blocks while it doesn't read. For a host side with a thread of its own, which is
    /// the only one that reads [`wants_input`](Self::wants_input).
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

    /// What was sent and the guest hasn't read: a reset takes it away from the guest.
    pub fn unread(&self) -> Vec<u8> {
        let registers = self.registers();
        let is_loopback = registers.serial.state().modem_control & LOOPBACK != 0;
        // In the loopback it may be the guest's own.
        if is_loopback { Vec::new() } else { registers.serial.state().in_buffer }
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("no panic while it is held")
    }

    /// Writes one register and returns what the transmitter sent.
    fn write_register(&self, register: u64, byte: u8) -> Sink {
        let mut registers = self.registers();
        // Err is an interrupt line that can't be triggered, which would take 2^64 edges.
        let _ = registers.serial.write(register as u8, byte);
        registers.polls = 0;
        if register == u64::from(INTERRUPT_ENABLE) {
            registers.interrupts_enabled(byte);
        }
        if register == MODEM_CONTROL || register == u64::from(INTERRUPT_ENABLE) {
            // The guest may have left the loopback, in which input isn't taken, or begun to listen.
            self.offer_room(&mut registers);
        }
        std::mem::take(registers.serial.writer_mut())
    }

    /// Tells the host side of room that it waits for.
    fn offer_room(&self, registers: &mut Registers) {
        // At half, so that a guest that reads byte by byte isn't answered byte by byte.
        if registers.input_waits && registers.room() >= 32 {
            registers.input_waits = false;
            // Can't be full: the counter would have to reach 2^64 - 1.
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

    fn build(_config: &NoFields, wiring: &mut Wiring) -> io::Result<Built> {
        let uart = Arc::new(Self::with_output(wiring.interrupt()?, wiring.output())?);
        Ok(Built::new(Arc::clone(&uart)).with_serial(uart))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u64 = 0;
    const IER: u64 = INTERRUPT_ENABLE as u64;
    const LSR: u64 = LINE_STATUS as u64;
    const LOOPBACK: u8 = 1 << 4;
    const TRANSMIT_INTERRUPT: u8 = 2;

    fn uart() -> (Uart, IrqLine) {
        let irq = IrqLine::new().unwrap();
        (Uart::new(irq.clone()).unwrap(), irq)
    }

    fn write(uart: &Uart, offset: u64, value: u8) {
        assert_eq!(uart.write(offset, &[value]), Outcome::Done);
    }

    /// A UART whose guest has its driver running.
    fn listening() -> (Uart, IrqLine) {
        let (uart, irq) = uart();
        write(&uart, IER, RECEIVED_DATA_ENABLED);
        (uart, irq)
    }

    fn read(uart: &Uart, offset: u64) -> u8 {
        let mut data = [0xff];
        uart.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn uart_fifo_full_stops_the_host_and_half_empty_asks_for_more() {
        let (uart, _) = listening();
        assert_eq!(uart.send(&[7; 100]), 64);
        assert!(uart.wants_input().read().is_err());
        (0..31).for_each(|_| assert_eq!(read(&uart, DATA), 7));
        assert!(uart.wants_input().read().is_err(), "31 bytes of room are too few");
        assert_eq!(read(&uart, DATA), 7);
        assert_eq!(uart.wants_input().read().unwrap(), 1);
        assert_eq!(uart.room(), 32);
    }

    #[test]
    fn uart_takes_all_that_is_typed_while_the_guest_reads() {
        let (uart, _) = listening();
        let typed: Vec<u8> = (0..200).collect();
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            let typing = scope.spawn(|| uart.send_all(&typed));
            while got.len() < typed.len() {
                match read(&uart, LSR) & DATA_READY {
                    0 => std::thread::yield_now(),
                    _ => got.push(read(&uart, DATA)),
                }
            }
            typing.join().unwrap().unwrap();
        });
        assert_eq!(got, typed);
    }

    #[test]
    fn uart_holds_a_guest_until_its_output_is_taken() {
        let (uart, _) = uart();
        let flood = |_| uart.write(DATA, b"x");
        assert_eq!((0..64 << 10).map(flood).last(), Some(Outcome::Hold));
        assert!(uart.is_holding());
        uart.output().take(&mut vec![0; 64 << 10]);
        assert!(!uart.is_holding());
    }

    #[test]
    fn uart_input_that_fits_is_not_asked_for_again() {
        let (uart, _) = listening();
        assert_eq!(uart.send(b"abc"), 3);
        (0..3).for_each(|_| _ = read(&uart, DATA));
        assert!(uart.wants_input().read().is_err());
    }

    #[test]
    fn uart_in_loopback_takes_nothing_and_asks_when_it_is_over() {
        let (uart, _) = listening();
        write(&uart, MODEM_CONTROL, LOOPBACK);
        assert_eq!(uart.send(b"typed"), 0);
        write(&uart, DATA, 0x55);
        assert_eq!(read(&uart, DATA), 0x55, "the guest hears itself");
        assert_eq!(uart.wants_input().read().unwrap(), 1, "and reading made room");
        assert_eq!(uart.send(b"typed"), 0);
        write(&uart, MODEM_CONTROL, 0);
        assert_eq!(uart.wants_input().read().unwrap(), 1);
        assert_eq!(uart.send(b"typed"), 5);
    }

    #[test]
    fn uart_input_waits_until_the_driver_enables_its_interrupt() {
        let (uart, irq) = uart();
        assert_eq!((uart.room(), uart.send(b"a")), (0, 0));
        assert_eq!(read(&uart, LSR) & DATA_READY, 0, "a driver that starts finds nothing to throw away");
        write(&uart, IER, RECEIVED_DATA_ENABLED);
        assert_eq!(uart.wants_input().read().unwrap(), 1);
        assert_eq!(uart.send(b"a"), 1);
        assert!(irq.event().read().is_ok());
        assert_eq!(read(&uart, LSR) & DATA_READY, DATA_READY);
    }

    #[test]
    fn uart_probe_of_all_interrupts_is_no_listening() {
        let (uart, _) = uart();
        write(&uart, IER, ALL_INTERRUPTS);
        assert_eq!(uart.send(b"a"), 0);
        write(&uart, IER, 0);
        assert_eq!(uart.send(b"a"), 0);
    }

    #[test]
    fn uart_interrupts_masked_for_a_moment_do_not_stop_input() {
        let (uart, _) = listening();
        write(&uart, IER, 0);
        assert_eq!(uart.send(b"a"), 1, "a console that prints masks them, and takes the byte later");
    }

    #[test]
    fn uart_input_that_was_not_read_is_there_for_another_guest() {
        let (uart, _) = listening();
        assert_eq!(uart.send(b"abc"), 3);
        assert_eq!(read(&uart, DATA), b'a');
        assert_eq!(uart.unread(), b"bc");
    }

    #[test]
    fn uart_own_words_in_the_loopback_are_not_for_another_guest() {
        let (uart, _) = listening();
        write(&uart, MODEM_CONTROL, LOOPBACK);
        write(&uart, DATA, 0x55);
        assert_eq!(uart.unread(), b"");
    }

    #[test]
    fn uart_input_reaches_a_guest_that_polls() {
        let (uart, _) = uart();
        assert_eq!(uart.send(b"ab"), 0);
        (0..POLLS).for_each(|_| _ = read(&uart, LSR));
        assert_eq!(uart.wants_input().read().unwrap(), 1);
        assert_eq!(uart.send(b"ab"), 2);
        assert_eq!([read(&uart, DATA), read(&uart, DATA)], *b"ab");
        assert_eq!(uart.send(b"c"), 1, "it still polls");
    }

    #[test]
    fn uart_input_reaches_a_guest_that_reads_whether_there_is_any_or_not() {
        let (uart, _) = uart();
        (0..POLLS).for_each(|_| {
            let _ = (read(&uart, LSR), read(&uart, DATA));
        });
        assert_eq!(uart.send(b"a"), 1);
    }

    #[test]
    fn uart_fifo_measured_in_the_loopback_is_no_polling() {
        let (uart, _) = uart();
        write(&uart, MODEM_CONTROL, 0x10);
        (0..32).for_each(|_| write(&uart, DATA, 0x55));
        (0..32).for_each(|_| {
            let _ = (read(&uart, LSR), read(&uart, DATA));
        });
        write(&uart, MODEM_CONTROL, 0);
        assert_eq!(uart.send(b"a"), 0);
    }

    #[test]
    fn uart_status_read_once_for_each_byte_printed_is_no_polling() {
        let (uart, _) = uart();
        (0..100).for_each(|_| {
            let _ = read(&uart, LSR);
            write(&uart, DATA, b'y');
        });
        assert_eq!(uart.send(b"a"), 0);
    }

    #[test]
    fn uart_identifies_received_data_until_the_fifo_is_empty() {
        let (uart, _) = listening();
        assert_eq!(uart.send(b"ab"), 2);
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), RECEIVED_DATA);
        assert_eq!(read(&uart, DATA), b'a');
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), RECEIVED_DATA, "one more waits");
        assert_eq!(read(&uart, DATA), b'b');
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), NO_INTERRUPT);
    }

    #[test]
    fn uart_received_data_does_not_hide_the_transmit_interrupt_for_ever() {
        let (uart, _) = uart();
        write(&uart, IER, RECEIVED_DATA_ENABLED | TRANSMIT_INTERRUPT);
        assert_eq!(uart.send(b"a"), 1);
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), RECEIVED_DATA);
        assert_eq!(read(&uart, DATA), b'a');
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION) & 0xf, TRANSMIT_INTERRUPT);
    }

    /// Linux disables it in the handler that has sent the last byte, and looks for another cause before it returns.
    #[test]
    fn uart_does_not_identify_the_transmit_interrupt_while_it_is_disabled() {
        let (uart, _) = uart();
        write(&uart, IER, TRANSMITTER_EMPTY_ENABLED);
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION) & 0xf, TRANSMIT_INTERRUPT);
        write(&uart, DATA, b'x');
        write(&uart, IER, 0);
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), NO_INTERRUPT);
        write(&uart, IER, TRANSMITTER_EMPTY_ENABLED);
        assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION) & 0xf, TRANSMIT_INTERRUPT);
    }

    #[test]
    fn uart_full_output_holds_the_vcpu_that_wrote_it() {
        let (uart, _) = uart();
        (0..(64 << 10) - 1).for_each(|_| write(&uart, DATA, b'y'));
        assert_eq!(uart.write(DATA, b"y"), Outcome::Hold);
        assert_eq!(uart.write(MODEM_CONTROL, &[0]), Outcome::Done, "other registers aren't held");
        assert_eq!(uart.output().lost(), 0);
    }

    proptest! {
        /// Any accesses of any width at any offset: no panic, and input that was taken comes out in order
        /// as long as no loopback mixes into it.
        #[test]
        fn uart_survives_any_access(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..8, prop::collection::vec(any::<u8>(), 1..9), 0usize..80), 0..200)) {
            let (uart, _) = uart();
            for (is_write, offset, mut data, typed) in accesses {
                uart.send(&vec![1; typed]);
                if is_write {
                    let _ = uart.write(offset, &data);
                } else {
                    uart.read(offset, &mut data);
                }
                prop_assert!(uart.room() <= 64);
            }
        }
    }
}
