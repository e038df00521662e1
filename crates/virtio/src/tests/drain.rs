//! Queue processing: notification suppression, the outcomes of a step, and fairness.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use vmm_bus::EventFd;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::{Scripted, shared_value};
use crate::testing::{Buf, Driver, features};
use crate::{Fault, Head, Session, Step};

/// A device that makes each chain available again while it uses it, as a second vCPU could. Returns the
/// number of chains per call of `process`.
fn endless(bufs: &[Buf<'_>]) -> (Driver, Vec<usize>) {
    let (available, in_device) = shared_value::<Option<u64>>();
    let (calls, counts) = channel();
    let device = Scripted::new(move |session| {
        let ram = session.ram().clone();
        let Some(available) = *in_device.lock().unwrap() else { return Ok(()) };
        let mut count = 0;
        let drained = session.drain(0, |_| {
            count += 1;
            let gpa = GuestAddress(available + 2);
            let index: u16 = ram.memory().load(gpa, Ordering::Acquire).unwrap();
            ram.memory().store(index.wrapping_add(1), gpa, Ordering::Release).unwrap();
            Ok(Step::Used(0))
        });
        let _ = calls.send(count);
        drained
    });
    let mut driver = device.running(0);
    let mut queue = driver.queue(0);
    // Descriptor 0 is the head, and all other entries of the ring are 0, too.
    assert_eq!(queue.add(bufs), 0);
    *available.lock().unwrap() = Some(queue.addresses()[1]);
    queue.kick();
    let counts = counts.iter().take(3).collect();
    (driver, counts)
}

#[test]
fn drain_of_chains_without_end_returns_and_is_called_again() {
    let (mut driver, counts) = endless(&[Buf::Write(1)]);
    assert_eq!(counts, [64, 64, 64], "four times 16");
    driver.reset();
}

#[test]
fn drain_of_long_chains_without_end_returns_as_early() {
    let (mut driver, counts) = endless(&[Buf::Write(1); 16]);
    assert_eq!(counts, [4, 4, 4], "64 descriptors");
    driver.reset();
}

/// A device that takes a chain, within its drain, when the test tells it to.
fn on_command() -> (Scripted, Sender<()>, Receiver<()>) {
    let (go, wait) = channel::<()>();
    let (entered, has_entered) = channel();
    let device = Scripted::new(move |session| {
        session.drain(0, |_| {
            let _ = entered.send(());
            let _ = wait.recv();
            Ok(Step::Used(0))
        })
    });
    (device, go, has_entered)
}

#[test]
fn driver_need_not_ring_while_the_device_drains() {
    let (device, go, has_entered) = on_command();
    let mut driver = device.running(0);
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Write(1)]);
    assert!(queue.kick(), "it is idle");
    has_entered.recv().unwrap();
    queue.add(&[Buf::Write(1)]);
    assert!(!queue.kick(), "it is draining and will check again");
    go.send(()).unwrap();
    go.send(()).unwrap();
    let _ = queue.wait_used();
    let _ = queue.wait_used();
    driver.suspend();
    driver.resume();
    driver.suspend();
    assert!(driver.queue(0).kick(), "it is idle again");
}

#[test]
fn interrupts_of_one_drain_are_one() {
    let (device, go, has_entered) = on_command();
    let mut driver = device.running(0);
    let mut queue = driver.queue(0);
    (0..5).for_each(|_| _ = queue.add(&[Buf::Write(1)]));
    queue.kick();
    has_entered.recv().unwrap();
    (0..5).for_each(|_| go.send(()).unwrap());
    (0..5).for_each(|_| _ = queue.wait_used());
    driver.suspend();
    assert_eq!(driver.control().counters().interrupts.get(), 1);
}

/// A device with room for this many chains, which an event makes available again.
fn with_room(room: usize) -> (Scripted, Arc<EventFd>) {
    let event = Arc::new(EventFd::new().unwrap());
    let left = Arc::new(AtomicUsize::new(room));
    let drain = {
        let left = Arc::clone(&left);
        move |session: &mut Session| {
            session.drain(0, |chain| {
                if left.load(Ordering::Relaxed) == 0 {
                    return Ok(Step::Full);
                }
                left.fetch_sub(1, Ordering::Relaxed);
                chain.writable().write(&[7])?;
                Ok(Step::Used(1))
            })
        }
    };
    let mut device = Scripted::new(drain.clone());
    let watched = Arc::clone(&event);
    device.start = Box::new(move |session| {
        session.watch(&*watched, 3).unwrap();
        Ok(())
    });
    let watched = Arc::clone(&event);
    device.stop = Box::new(move |session| session.unwatch(&*watched).unwrap());
    let watched = Arc::clone(&event);
    device.event = Box::new(move |session| {
        let _ = watched.read();
        left.store(room, Ordering::Relaxed);
        drain(session)
    });
    (device, event)
}

#[test]
fn chains_that_have_no_room_stay_in_order_and_are_served_later() {
    let (device, event) = with_room(2);
    let mut driver = device.running(0);
    let mut queue = driver.queue(0);
    let heads: Vec<_> = (0..5).map(|_| queue.add(&[Buf::Write(1)])).collect();
    queue.kick();
    let mut used = vec![queue.wait_used().head, queue.wait_used().head];
    driver.suspend();
    assert_eq!(driver.queue(0).used_index(), 2);
    driver.resume();
    event.write(1).unwrap();
    let mut queue = driver.queue(0);
    used.extend([queue.wait_used().head, queue.wait_used().head]);
    event.write(1).unwrap();
    used.push(queue.wait_used().head);
    assert_eq!(used, heads);
}

#[test]
fn driver_need_not_ring_while_the_device_has_no_room() {
    let (device, event) = with_room(1);
    let mut driver = device.running(0);
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Write(1)]);
    queue.add(&[Buf::Write(1)]);
    queue.kick();
    let _ = queue.wait_used();
    driver.suspend();
    driver.queue(0).add(&[Buf::Write(1)]);
    assert!(!driver.queue(0).kick());
    driver.resume();
    event.write(1).unwrap();
    let _ = driver.queue(0).wait_used();
    event.write(1).unwrap();
    let _ = driver.queue(0).wait_used();
}

/// A device that keeps chains and completes them when it stops, without announcing them.
fn keeper() -> Scripted {
    let kept = Arc::new(Mutex::new(Vec::<Head>::new()));
    let at_stop = Arc::clone(&kept);
    let mut device = Scripted::new(move |session| {
        session.drain(0, |chain| {
            kept.lock().unwrap().push(chain.head());
            Ok(Step::Kept)
        })
    });
    device.stop = Box::new(move |session| {
        let queue = session.queue(0).expect("it is set up");
        for head in at_stop.lock().unwrap().drain(..) {
            queue.complete(head, u32::MAX).expect("the rings are memory");
        }
        assert_eq!(queue.in_flight(), 0);
    });
    device
}

#[test]
fn chains_given_back_at_a_stop_are_announced() {
    let mut driver = keeper().running(0);
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Write(3)]);
    queue.kick();
    driver.suspend();
    driver.wait_any_interrupt();
    assert_eq!(driver.queue(0).wait_used().len, 3, "no more than there is");
}

#[test]
fn queue_has_begun_with_its_first_chain_and_counts_those_in_flight() {
    let (send, states) = channel();
    let mut heads = Vec::new();
    let device = Scripted::new(move |session| {
        session.drain(0, |chain| {
            heads.push(chain.head());
            Ok(Step::Kept)
        })?;
        let queue = session.queue(0).expect("it is set up");
        let _ = send.send((queue.has_begun(), queue.in_flight()));
        heads.drain(..).try_for_each(|head| queue.complete(head, 0))?;
        let _ = send.send((queue.has_begun(), queue.in_flight()));
        Ok(())
    });
    let mut driver = device.running(0);
    let state = || states.recv().unwrap();
    assert_eq!([state(), state()], [(false, 0), (false, 0)], "at the start");
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    assert_eq!([state(), state()], [(true, 2), (true, 0)]);
}

#[test]
fn chain_made_available_while_it_is_kept_needs_reset() {
    let mut driver = keeper().running(0);
    let mut queue = driver.queue(0);
    let head = queue.add(&[Buf::Write(3)]);
    queue.make_available(head);
    queue.notify();
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::InUse { head }));
    driver.reset();
}

#[test]
fn length_beyond_the_buffers_is_not_reported() {
    let mut driver =
        Scripted::new(|session| session.drain(0, |_| Ok(Step::Used(u32::MAX)))).running(features::INDIRECT);
    let used = driver.queue(0).request(&[Buf::Read(b"abc"), Buf::Write(2), Buf::Write(3)]);
    assert_eq!(used.len, 5);
}
