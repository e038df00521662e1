//! Queues lent to another server, such as the kernel.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use vmm_bus::EventFd;

use super::{Scripted, shared_value};
use crate::queue::QueueContext;
use crate::testing::{Buf, Driver, features};
use crate::{Fault, Queue, Session, Step};

/// Serves the queue with an independent implementation, from its current position, and returns the next
/// available index.
fn serve_elsewhere(queue: &Queue, session: &Session) -> u16 {
    let context = QueueContext {
        ram: session.ram().clone(),
        interrupt: Arc::clone(&session.interrupt),
        counters: Arc::clone(&session.counters),
        indirect: false,
    };
    let kick = Arc::new(EventFd::new().unwrap());
    let mut other = Queue::new(0, queue.state(), kick, &context).unwrap();
    other.drain(|chain| chain.writable().write(b"e").map(|()| Step::Used(1))).unwrap();
    other.state().next_avail
}

/// A device that lends its queue when it starts and returns it, served, when it stops. The counters are the
/// calls for the queue meanwhile and the available index at each lending.
fn lender() -> (Scripted, super::SharedValue<u32>, super::SharedValue<Vec<u16>>) {
    let (calls, in_device) = shared_value::<u32>();
    let (starts, started) = shared_value::<Vec<u16>>();
    let lent = Arc::new(Mutex::new(None));
    let mut device = Scripted::new(move |_| {
        *in_device.lock().unwrap() += 1;
        Ok(())
    });
    let taken = Arc::clone(&lent);
    device.start = Box::new(move |session| {
        let queue = session.lend(0).unwrap();
        started.lock().unwrap().push(queue.state().next_avail);
        *taken.lock().unwrap() = Some(queue);
        assert!(session.queue(0).is_none(), "it is lent");
        assert!(session.lend(0).is_none(), "only once");
        Ok(())
    });
    device.stop = Box::new(move |session| {
        let mut queue = lent.lock().unwrap().take().unwrap();
        queue.continue_at(serve_elsewhere(&queue, session));
        session.give_back(queue);
    });
    (device, calls, starts)
}

fn add(driver: &mut Driver) {
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
}

fn take(driver: &mut Driver) -> Vec<u8> {
    driver.queue(0).wait_used().bytes
}

#[test]
fn queue_lent_is_not_the_devices_and_goes_on_where_it_was_left() {
    let (device, calls, starts) = lender();
    let mut driver = device.running(features::EVENT_IDX);
    (0..3).for_each(|_| add(&mut driver));
    driver.suspend();
    assert_eq!([take(&mut driver), take(&mut driver), take(&mut driver)], [b"e", b"e", b"e"]);
    driver.resume();
    (0..2).for_each(|_| add(&mut driver));
    driver.suspend();
    assert_eq!([take(&mut driver), take(&mut driver)], [b"e", b"e"]);
    assert_eq!(*starts.lock().unwrap(), [0, 3]);
    assert_eq!(*calls.lock().unwrap(), 0, "the device wasn't called for a kick");
    assert_eq!(driver.control().counters().kicks.get(), 0);
}

#[test]
fn queue_lent_comes_back_new_after_a_reset() {
    let (device, _, starts) = lender();
    let mut driver = device.running(0);
    add(&mut driver);
    driver.reset();
    driver.init(0);
    add(&mut driver);
    driver.suspend();
    assert_eq!(take(&mut driver), b"e");
    assert_eq!(*starts.lock().unwrap(), [0, 0]);
}

#[test]
fn queue_given_back_is_where_it_was() {
    let (send, queues) = channel();
    let mut device = Scripted::new(|_| Ok(()));
    device.sizes = vec![8, 16, 32];
    device.start = Box::new(move |session| {
        let queue = session.lend(2).unwrap();
        session.give_back(queue);
        let sizes = [0, 1, 2].map(|index| session.queue(index).map(|queue| queue.size()));
        let _ = send.send(sizes);
        Ok(())
    });
    let _driver = device.running(0);
    assert_eq!(queues.recv().unwrap(), [Some(8), Some(16), Some(32)]);
}

#[test]
fn refusal_by_the_kernel_is_reported_with_the_call() {
    let fault = Fault::Refused { call: "VHOST_SET_MEM_TABLE", errno: 7 };
    let words = "the host's kernel refused VHOST_SET_MEM_TABLE: Argument list too long (os error 7)";
    assert_eq!(fault.to_string(), words);
}
