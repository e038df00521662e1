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

/// A UART whose guest has enabled the received data interrupt.
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
fn uart_in_loopback_accepts_no_input_and_asks_for_it_afterwards() {
    let (uart, _) = listening();
    write(&uart, MODEM_CONTROL, LOOPBACK);
    assert_eq!(uart.send(b"typed"), 0);
    write(&uart, DATA, 0x55);
    assert_eq!(read(&uart, DATA), 0x55, "the guest reads its own byte");
    assert_eq!(uart.wants_input().read().unwrap(), 1, "the read made room");
    assert_eq!(uart.send(b"typed"), 0);
    write(&uart, MODEM_CONTROL, 0);
    assert_eq!(uart.wants_input().read().unwrap(), 1);
    assert_eq!(uart.send(b"typed"), 5);
}

#[test]
fn uart_input_waits_until_the_driver_enables_its_interrupt() {
    let (uart, irq) = uart();
    assert_eq!((uart.room(), uart.send(b"a")), (0, 0));
    assert_eq!(read(&uart, LSR) & DATA_READY, 0, "a driver that is starting has nothing to discard");
    write(&uart, IER, RECEIVED_DATA_ENABLED);
    assert_eq!(uart.wants_input().read().unwrap(), 1);
    assert_eq!(uart.send(b"a"), 1);
    assert!(irq.event().read().is_ok());
    assert_eq!(read(&uart, LSR) & DATA_READY, DATA_READY);
}

#[test]
fn uart_probe_of_all_interrupts_does_not_accept_input() {
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
    assert_eq!(uart.send(b"a"), 1, "a console masks them while it prints, and reads the byte later");
}

#[test]
fn uart_input_that_was_not_read_is_returned() {
    let (uart, _) = listening();
    assert_eq!(uart.send(b"abc"), 3);
    assert_eq!(read(&uart, DATA), b'a');
    assert_eq!(uart.unread(), b"bc");
}

#[test]
fn uart_bytes_in_loopback_are_not_returned_as_unread() {
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
fn uart_input_reaches_a_guest_that_reads_data_regardless_of_status() {
    let (uart, _) = uart();
    (0..POLLS).for_each(|_| {
        let _ = (read(&uart, LSR), read(&uart, DATA));
    });
    assert_eq!(uart.send(b"a"), 1);
}

#[test]
fn uart_fifo_measured_in_loopback_is_not_taken_for_polling() {
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
fn uart_status_read_once_per_printed_byte_is_not_taken_for_polling() {
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
    assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), RECEIVED_DATA, "one more byte is available");
    assert_eq!(read(&uart, DATA), b'b');
    assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), NO_INTERRUPT);
}

#[test]
fn uart_received_data_hides_the_transmit_interrupt_only_until_read() {
    let (uart, _) = uart();
    write(&uart, IER, RECEIVED_DATA_ENABLED | TRANSMIT_INTERRUPT);
    assert_eq!(uart.send(b"a"), 1);
    assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION), RECEIVED_DATA);
    assert_eq!(read(&uart, DATA), b'a');
    assert_eq!(read(&uart, INTERRUPT_IDENTIFICATION) & 0xf, TRANSMIT_INTERRUPT);
}

/// Linux's handler disables the interrupt after sending the last byte, and checks for another cause before it returns.
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
    assert_eq!(uart.write(MODEM_CONTROL, &[0]), Outcome::Done, "only output is held");
    assert_eq!(uart.output().lost(), 0);
}

proptest! {
    /// No access of any value, width and offset panics, or makes the FIFO larger than it is.
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
