//! The UART's state.

use vm_superio::{Serial, SerialState};
use vmm_bus::IrqLine;
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::{ALL_INTERRUPTS, DATA_READY, Irq, NoEvents, Registers, Sink, Uart};
use crate::Stateful;

/// Length of the receive FIFO.
const FIFO_LEN: usize = 64;
/// The line status besides [`DATA_READY`]: the transmitter is always empty.
const TRANSMITTER_EMPTY: u8 = 0x60;
/// Values of vm-superio's interrupt identification: none; or transmitter empty, received data, or both.
const IDENTIFICATIONS: [u8; 4] = [1, 2, 4, 6];

/// The registers and received bytes of a [`Uart`]. What it has sent is in the [`OutputState`](crate::OutputState).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UartState {
    serial: SerialState,
    listens: bool,
    polls: u8,
}

impl State for UartState {
    const KIND: &'static str = "dev.uart";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = &self.serial;
        fields.u8(*baud_divisor_low);
        fields.u8(*baud_divisor_high);
        fields.u8(*interrupt_enable);
        fields.u8(*interrupt_identification);
        fields.u8(*line_control);
        fields.u8(*line_status);
        fields.u8(*modem_control);
        fields.u8(*modem_status);
        fields.u8(*scratch);
        fields.bytes(in_buffer);
        fields.bool(self.listens);
        fields.u8(self.polls);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let serial = SerialState {
            baud_divisor_low: fields.u8("baud_divisor_low")?,
            baud_divisor_high: fields.u8("baud_divisor_high")?,
            interrupt_enable: fields.u8("interrupt_enable")?,
            interrupt_identification: fields.u8("interrupt_identification")?,
            line_control: fields.u8("line_control")?,
            line_status: fields.u8("line_status")?,
            modem_control: fields.u8("modem_control")?,
            modem_status: fields.u8("modem_status")?,
            scratch: fields.u8("scratch")?,
            in_buffer: fields.bytes("fifo", FIFO_LEN)?.to_vec(),
        };
        check(&serial)?;
        Ok(Self { serial, listens: fields.bool("listens")?, polls: fields.u8("polls")? })
    }
}

/// Checks what vm-superio assumes.
fn check(serial: &SerialState) -> Result<(), StateError> {
    let is_ready = if serial.in_buffer.is_empty() { 0 } else { DATA_READY };
    let refuse = |field, value| Err(StateError::new(field, format!("{value:#x} isn't possible")));
    if serial.interrupt_enable & !ALL_INTERRUPTS != 0 {
        return refuse("interrupt_enable", serial.interrupt_enable);
    }
    if !IDENTIFICATIONS.contains(&serial.interrupt_identification) {
        return refuse("interrupt_identification", serial.interrupt_identification);
    }
    if serial.line_status != TRANSMITTER_EMPTY | is_ready {
        return refuse("line_status", serial.line_status);
    }
    Ok(())
}

impl Stateful for Uart {
    type State = UartState;

    fn save(&self) -> UartState {
        let Registers { serial, input_waits: _, polls, listens } = &*self.registers();
        UartState { serial: serial.state(), listens: *listens, polls: *polls }
    }

    /// Interrupts that were pending are raised again: the guest would otherwise wait forever for the transmitter to be empty. The
    /// host's side is asked for input when there is room, because it may have had some that didn't fit.
    fn load(&self, state: &UartState) -> Result<(), StateError> {
        let mut registers = self.registers();
        let irq: IrqLine = registers.serial.interrupt_evt().0.clone();
        let serial = Serial::from_state(&state.serial, Irq(irq.clone()), NoEvents, Sink::default());
        let serial = serial.map_err(|error| StateError::new("fifo", error.to_string()))?;
        *registers = Registers { serial, input_waits: true, polls: state.polls, listens: state.listens };
        // vm-superio raises it only as long as no byte has been read.
        if registers.has_received_data_interrupt() {
            // It can't fail: the eventfd's counter would have to reach 2^64 - 1.
            let _ = irq.trigger();
        }
        self.offer_room(&mut registers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_bus::{BusDevice, IrqLine, Outcome};

    use super::*;
    use crate::testing::{assert_loads_or_refuses, load, reload, saved};

    const IER: u64 = 1;
    const IIR: u64 = 2;
    const LSR: u64 = 5;

    fn uart() -> (Uart, IrqLine) {
        let irq = IrqLine::new().unwrap();
        (Uart::new(irq.clone()).unwrap(), irq)
    }

    fn read(uart: &Uart, offset: u64) -> u8 {
        let mut data = [0xff];
        uart.read(offset, &mut data);
        data[0]
    }

    /// A UART whose guest has set up its driver.
    fn listening() -> (Uart, IrqLine) {
        let (uart, irq) = uart();
        assert_eq!(uart.write(IER, &[1]), Outcome::Done);
        (uart, irq)
    }

    /// Linux's driver waits for it after each burst of output (Firecracker's issue 5764).
    #[test]
    fn uart_transmitter_empty_interrupt_that_was_pending_is_raised_after_a_load() {
        let (from, _) = uart();
        assert_eq!(from.write(IER, &[2]), Outcome::Done);
        let (to, irq) = uart();
        reload(&from, &to).unwrap();
        assert_eq!(irq.event().read().unwrap(), 1);
        assert_eq!(read(&to, IIR), 0xc2);
    }

    #[test]
    fn uart_input_that_was_not_read_is_there_and_raised_after_a_load() {
        let (from, _) = listening();
        assert_eq!(from.send(b"ls"), 2);
        // The handler is between two bytes: vm-superio no longer has the interrupt.
        assert_eq!(read(&from, 0), b'l');
        let (to, irq) = uart();
        reload(&from, &to).unwrap();
        assert_eq!(irq.event().read().unwrap(), 1);
        assert_eq!((read(&to, LSR) & 1, read(&to, 0), read(&to, LSR) & 1), (1, b's', 0));
    }

    #[test]
    fn uart_takes_input_at_once_after_a_load() {
        let (from, _) = listening();
        let (to, irq) = uart();
        reload(&from, &to).unwrap();
        assert_eq!(to.wants_input().read().unwrap(), 1, "the host's side may have input that didn't fit");
        assert_eq!(to.send(b"a"), 1);
        assert!(irq.event().read().is_ok());
        assert_eq!(read(&to, 0), b'a');
    }

    #[test]
    fn uart_with_a_full_fifo_asks_for_input_when_there_is_room() {
        let (from, _) = listening();
        assert_eq!(from.send(&[7; 80]), 64);
        let (to, _) = uart();
        reload(&from, &to).unwrap();
        assert!(to.wants_input().read().is_err());
        (0..32).for_each(|_| assert_eq!(read(&to, 0), 7));
        assert_eq!(to.wants_input().read().unwrap(), 1);
    }

    #[test]
    fn uart_with_registers_that_no_guest_can_write_is_refused() {
        let refusal = |at: usize, value| {
            let mut bytes = saved(&uart().0);
            bytes[at] = value;
            load(&uart().0, &bytes).unwrap_err().to_string()
        };
        assert_eq!(refusal(2, 0x10), "interrupt_enable: 0x10 isn't possible");
        assert_eq!(refusal(3, 3), "interrupt_identification: 0x3 isn't possible");
        assert_eq!(refusal(5, 0x61), "line_status: 0x61 isn't possible");
        assert_eq!(refusal(9, 65), "fifo: has 65 bytes, at most 64 are possible");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64),
        Write(u64, u8),
        Send(Vec<u8>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u64..8).prop_map(Step::Read),
            3 => (0_u64..8, prop_oneof![0_u8..32, any::<u8>()]).prop_map(|(at, value)| Step::Write(at, value)),
            1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Send),
        ];
        prop::collection::vec(step, 0..80)
    }

    /// Takes a step; what the guest and the host see of it, and whether there was an interrupt.
    fn take(step: &Step, uart: &Uart, irq: &IrqLine) -> (usize, Vec<u8>, bool) {
        let seen = match step {
            Step::Read(offset) => read(uart, *offset).into(),
            Step::Write(offset, value) => usize::from(uart.write(*offset, &[*value]) == Outcome::Done),
            Step::Send(bytes) => uart.send(bytes),
        };
        let mut sent = vec![0; 4];
        let len = uart.output().take(&mut sent).len;
        sent.truncate(len);
        (seen, sent, irq.event().read().is_ok())
    }

    proptest! {
        #[test]
        fn uart_after_any_steps_is_loaded_as_it_was_and_goes_on_so(before in steps(), after in steps()) {
            let (from, irq) = uart();
            before.iter().for_each(|step| drop(take(step, &from, &irq)));
            let (to, other_irq) = uart();
            reload(&from, &to).unwrap();
            prop_assert_eq!(Stateful::save(&to), Stateful::save(&from));
            let _ = other_irq.event().read();
            for step in after {
                prop_assert_eq!(take(&step, &to, &other_irq), take(&step, &from, &irq), "{:?}", step);
            }
            prop_assert_eq!(Stateful::save(&to), Stateful::save(&from));
        }

        #[test]
        fn uart_of_any_bytes_is_refused_or_loaded(
            registers in prop::collection::vec(any::<u8>(), 9),
            fifo in prop::collection::vec(any::<u8>(), 0..70),
            rest: [u8; 2],
            valid: bool,
        ) {
            let mut bytes = [&registers[..], &(fifo.len() as u32).to_le_bytes(), &fifo, &rest].concat();
            if valid {
                bytes[2] &= ALL_INTERRUPTS;
                bytes[3] = IDENTIFICATIONS[usize::from(bytes[3] % 4)];
                bytes[5] = TRANSMITTER_EMPTY | u8::from(!fifo.is_empty());
                let listens = bytes.len() - 2;
                bytes[listens] &= 1;
            }
            let device = uart().0;
            assert_loads_or_refuses(&device, &bytes);
            prop_assert_eq!(load(&uart().0, &bytes).is_ok(), valid && fifo.len() <= FIFO_LEN);
        }

        #[test]
        fn uart_cut_anywhere_is_refused(len in 0_usize..15) {
            prop_assert!(load(&uart().0, &saved(&uart().0)[..len.min(14)]).is_err());
        }
    }
}
