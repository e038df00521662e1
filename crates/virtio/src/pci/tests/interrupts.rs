//! Lines, and what a reset leaves of interrupts.

use std::sync::{Arc, Mutex};

use vmm_bus::EventFd;
use vmm_pci::{CONTROL_ENABLE, CONTROL_FUNCTION_MASK, Message};

use crate::pci::interrupt::{NO_VECTOR, PciInterrupt};
use crate::{Interrupt, MessageLine, MessageSender};

const MESSAGE: Message = Message { address: 0xfee0_2000, data: 0x41 };

#[derive(Default)]
struct Lines {
    sent: Mutex<Vec<Message>>,
    /// The routes of the line, one after the other.
    routes: Mutex<Vec<Option<Message>>>,
    lines: Mutex<usize>,
}

struct Sender(Arc<Lines>);

impl MessageSender for Sender {
    fn send(&self, message: Message) {
        self.0.sent.lock().unwrap().push(message);
    }

    fn line(&self) -> Option<Box<dyn MessageLine>> {
        *self.0.lines.lock().unwrap() += 1;
        let event = Arc::new(EventFd::new().unwrap());
        Some(Box::new(Line { event, lines: Arc::clone(&self.0) }))
    }
}

struct Line {
    event: Arc<EventFd>,
    lines: Arc<Lines>,
}

impl MessageLine for Line {
    fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    fn route(&mut self, message: Option<Message>) {
        self.lines.routes.lock().unwrap().push(message);
    }
}

/// Interrupts of a device with one queue, whose vector 1 is set up, unmasked and mapped to it.
fn interrupt() -> (PciInterrupt, Arc<Lines>) {
    let lines = Arc::<Lines>::default();
    let interrupt = PciInterrupt::new(1, Box::new(Sender(Arc::clone(&lines))));
    interrupt.change(|msix| {
        msix.set_control(CONTROL_ENABLE);
        msix.bus_master = true;
        msix.write_table(16, &MESSAGE.address.to_le_bytes());
        msix.write_table(24, &u64::from(MESSAGE.data).to_le_bytes());
    });
    interrupt.set_vector(Some(0), 1);
    (interrupt, lines)
}

/// The route now.
fn route(lines: &Lines) -> Option<Message> {
    *lines.routes.lock().unwrap().last().expect("it was routed")
}

#[test]
fn line_is_one_for_a_queue_and_has_its_message_at_once() {
    let (interrupt, lines) = interrupt();
    let first = interrupt.line(0).unwrap();
    assert_eq!(route(&lines), Some(MESSAGE));
    assert!(Arc::ptr_eq(&first, &interrupt.line(0).unwrap()));
    assert_eq!(*lines.lines.lock().unwrap(), 1);
    assert!(interrupt.line(1).is_none(), "there is no such queue");
}

#[test]
fn line_is_routed_while_its_message_can_be_sent() {
    let (interrupt, lines) = interrupt();
    let _line = interrupt.line(0).unwrap();
    let mask = |masked: u32| interrupt.change(|msix| msix.write_table(28, &masked.to_le_bytes()));
    let set_control = |control| interrupt.change(|msix| msix.set_control(control));
    mask(1);
    assert_eq!(route(&lines), None, "masked");
    mask(0);
    assert_eq!(route(&lines), Some(MESSAGE));
    set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    assert_eq!(route(&lines), None, "all are masked");
    set_control(CONTROL_ENABLE);
    assert_eq!(route(&lines), Some(MESSAGE));
    set_control(0);
    assert_eq!(route(&lines), None, "off");
    set_control(CONTROL_ENABLE);
    interrupt.change(|msix| msix.bus_master = false);
    assert_eq!(route(&lines), None, "no bus master");
    interrupt.change(|msix| msix.bus_master = true);
    interrupt.change(|msix| msix.write_table(24, &0x42_u32.to_le_bytes()));
    assert_eq!(route(&lines), Some(Message { data: 0x42, ..MESSAGE }), "another message");
    interrupt.set_vector(Some(0), NO_VECTOR);
    assert_eq!(route(&lines), None, "no vector");
    interrupt.set_vector(Some(0), 0);
    assert_eq!(route(&lines), None, "a vector that is masked");
}

#[test]
fn line_at_a_reset_is_drained_and_has_no_message() {
    let (interrupt, lines) = interrupt();
    let line = interrupt.line(0).unwrap();
    interrupt.change(|msix| msix.write_table(28, &[1, 0, 0, 0]));
    line.write(1).unwrap();
    interrupt.reset();
    assert!(line.read().is_err(), "it waited in vain");
    interrupt.change(|msix| msix.write_table(28, &[0; 4]));
    assert_eq!(route(&lines), None);
    interrupt.set_vector(Some(0), 1);
    assert_eq!(route(&lines), Some(MESSAGE));
}

#[test]
fn vector_pending_at_a_reset_is_not_sent_after_it() {
    let (interrupt, lines) = interrupt();
    interrupt.change(|msix| msix.write_table(28, &[1, 0, 0, 0]));
    interrupt.queue(0);
    assert!(interrupt.read(|msix| msix.vectors[1].pending));
    interrupt.reset();
    interrupt.change(|msix| msix.write_table(28, &[0; 4]));
    assert!(lines.sent.lock().unwrap().is_empty());
}

#[test]
fn interrupts_after_a_reset_have_no_vector() {
    let (interrupt, lines) = interrupt();
    interrupt.queue(0);
    interrupt.reset();
    interrupt.queue(0);
    interrupt.queue(0x1_0000);
    interrupt.config();
    assert_eq!(*lines.sent.lock().unwrap(), [MESSAGE], "that before it");
    assert_eq!((interrupt.vector(None), interrupt.vector(Some(0))), (NO_VECTOR, NO_VECTOR));
}
