//! Wrap-around of the 16-bit indices.

use super::Scripted;
use crate::Step;
use crate::testing::{Buf, Driver, features};

fn writer() -> Scripted {
    Scripted::new(|session| {
        session.drain(0, |chain| {
            chain.writable().write(&[7])?;
            Ok(Step::Used(1))
        })
    })
}

/// More than twice around the indices, in batches whose length doesn't divide that of the ring.
fn run_over(features: u64) {
    let mut driver = writer().running(features);
    for _ in 0..2 * 0x1_0000 / 13 + 100 {
        let mut queue = driver.queue(0);
        (0..13).for_each(|_| _ = queue.add(&[Buf::Write(1)]));
        queue.kick();
        (0..13).for_each(|_| assert_eq!(queue.wait_used().written(), [7]));
    }
}

#[test]
fn indices_wrap_and_the_queue_continues() {
    run_over(0);
}

#[test]
fn indices_wrap_and_event_idx_continues() {
    run_over(features::EVENT_IDX);
}

/// A driver whose next chain makes the used index wrap to 0.
fn at_65535() -> Driver {
    let mut driver = writer().running(features::EVENT_IDX);
    let mut queue = driver.queue(0);
    queue.set_interrupts(false);
    for _ in 0..0xffff / 15 {
        (0..15).for_each(|_| _ = queue.add(&[Buf::Write(1)]));
        queue.kick();
        (0..15).for_each(|_| _ = queue.poll_used());
    }
    assert_eq!(queue.used_index(), 0xffff);
    queue.set_interrupts(true);
    let _ = driver.interrupts();
    driver
}

#[test]
fn used_event_of_65535_interrupts_with_the_chain_of_that_index() {
    let mut driver = at_65535();
    driver.queue(0).set_used_event(0xffff);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_any_interrupt();
    assert_eq!(driver.queue(0).used_index(), 0);
}

#[test]
fn used_event_of_0_does_not_interrupt_with_the_chain_before() {
    let mut driver = at_65535();
    let before = driver.interrupts();
    let mut queue = driver.queue(0);
    queue.set_used_event(0);
    queue.add(&[Buf::Write(1)]);
    queue.kick();
    let _ = queue.poll_used();
    driver.suspend();
    assert_eq!(driver.interrupts(), before);
    driver.resume();
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_any_interrupt();
    assert_eq!(driver.queue(0).used_index(), 1);
}

#[test]
fn available_event_enables_one_notification_after_the_device_has_looked() {
    let mut driver = writer().running(features::EVENT_IDX);
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Write(1)]);
    assert!(queue.kick(), "the first one");
    let _ = queue.wait_used();
    driver.suspend();
    driver.resume();
    driver.suspend();
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Write(1)]);
    assert!(queue.kick(), "the device has asked for the next one");
    queue.add(&[Buf::Write(1)]);
    assert!(!queue.kick(), "it hasn't looked since");
    driver.resume();
    let _ = driver.queue(0).wait_used();
    let _ = driver.queue(0).wait_used();
}
