//! Reset, suspend and resume in every state.

use vmm_bus::Outcome;

use super::Subject;
use crate::testing::{Driver, Register, features};

pub fn reset_makes_everything_as_it_was(subject: &Subject) {
    let mut driver = subject.running(features::EVENT_IDX);
    subject.serve(&mut driver);
    driver.reset();
    assert_eq!(driver.read(Register::Status), 0);
    assert_eq!(driver.read(Register::InterruptStatus), 0);
    for queue in 0..subject.expect.queues.len() as u32 {
        driver.write(Register::QueueSel, queue);
        assert_eq!(driver.read(Register::QueueReady), 0);
    }
    driver.reset();
    subject.recover(&mut driver);
}

pub fn reset_with_chains_in_flight_ends(subject: &Subject) {
    let mut driver = subject.driver();
    for _ in 0..20 {
        driver.init(features::INDIRECT);
        fill(subject, &mut driver);
        driver.reset();
    }
    subject.recover(&mut driver);
}

/// Fills the queue and notifies the device. Returns the number of chains.
pub(super) fn fill(subject: &Subject, driver: &mut Driver) -> u16 {
    let mut queue = driver.queue(subject.expect.queue);
    let size = queue.size();
    (0..size).for_each(|_| _ = queue.add_indirect(&subject.bufs()));
    queue.kick();
    size
}

pub fn reset_right_behind_driver_ok_ends(subject: &Subject) {
    let mut driver = subject.driver();
    for _ in 0..20 {
        driver.init(0);
        driver.reset();
    }
    subject.recover(&mut driver);
}

/// Two vCPUs reset the device: both are held and released.
pub fn reset_twice_at_once_ends(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    fill(subject, &mut driver);
    let first = driver.port().write(Register::Status, 0);
    assert_eq!(first, Outcome::Hold);
    // If the first reset is complete already, this is another reset.
    driver.write(Register::Status, 0);
    driver.wait_hold();
    assert_eq!(driver.status(), 0);
    subject.recover(&mut driver);
}

pub fn suspend_keeps_what_comes_meanwhile(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    driver.suspend();
    subject.send(&mut driver);
    let queue = driver.queue(subject.expect.queue);
    assert_eq!(queue.used_index(), 1, "it is stopped");
    driver.resume();
    subject.receive(&mut driver);
    assert_eq!(driver.queue(subject.expect.queue).used_index(), 2);
}

pub fn suspend_with_chains_in_flight_loses_none(subject: &Subject) {
    suspend_often(subject, features::INDIRECT);
}

pub fn suspend_with_chains_in_flight_and_event_idx_loses_none(subject: &Subject) {
    suspend_often(subject, features::INDIRECT | features::EVENT_IDX);
}

fn suspend_often(subject: &Subject, features: u64) {
    let mut driver = subject.running(features);
    for _ in 0..20 {
        let count = fill(subject, &mut driver);
        driver.suspend();
        driver.resume();
        (0..count).for_each(|_| subject.receive(&mut driver));
    }
}

pub fn suspend_twice_is_once(subject: &Subject) {
    let mut driver = subject.running(0);
    driver.suspend();
    driver.suspend();
    driver.resume();
    driver.resume();
    subject.serve(&mut driver);
}

pub fn suspend_of_a_fresh_device_is_nothing(subject: &Subject) {
    let mut driver = subject.driver();
    driver.suspend();
    driver.resume();
    assert!(driver.negotiate(0));
    driver.suspend();
    driver.resume();
    subject.recover(&mut driver);
}

pub fn suspend_during_a_reset_waits_for_it(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    fill(subject, &mut driver);
    assert_eq!(driver.port().write(Register::Status, 0), Outcome::Hold);
    driver.suspend();
    assert!(!driver.is_holding());
    driver.resume();
    assert_eq!(driver.status(), 0);
    subject.recover(&mut driver);
}

pub fn reset_of_a_suspended_device_is_a_reset(subject: &Subject) {
    let mut driver = subject.running(0);
    driver.suspend();
    driver.reset();
    driver.resume();
    assert_eq!(driver.status(), 0);
    subject.recover(&mut driver);
}

pub fn needs_reset_survives_suspend_and_resume(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.provoke_fault(&mut driver);
    driver.suspend();
    driver.resume();
    subject.send(&mut driver);
    // Afterwards the device has finished all work.
    driver.suspend();
    assert_eq!(driver.queue(subject.expect.queue).used_index(), 0, "nothing is served");
    assert!(driver.needs_reset());
    driver.resume();
    subject.recover(&mut driver);
}

/// The configuration space; zeros beyond its end.
fn configuration(driver: &Driver) -> [u8; 64] {
    let mut bytes = [0; 64];
    (0..).step_by(8).zip(bytes.chunks_mut(8)).for_each(|(offset, bytes)| driver.read_config(offset, bytes));
    bytes
}

pub fn power_cycle_makes_the_device_as_it_was_opened(subject: &Subject) {
    let mut driver = subject.driver();
    let (offered, opened) = (driver.offered(), configuration(&driver));
    driver.init(features::EVENT_IDX);
    subject.serve(&mut driver);
    // Byte by byte, because a write that isn't entirely to writable bytes has no effect.
    (0..64).for_each(|offset| driver.write_config(offset, &[!opened[offset as usize]]));
    let mut driver = driver.power_cycle();
    assert_eq!((driver.status(), driver.offered()), (0, offered));
    assert_eq!(configuration(&driver), opened);
    subject.recover(&mut driver);
}

pub fn power_cycle_with_chains_in_flight_ends(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    fill(subject, &mut driver);
    let mut driver = driver.power_cycle();
    subject.recover(&mut driver);
}

pub fn power_cycle_of_a_broken_device_mends_it(subject: &Subject) {
    let mut driver = subject.running(0);
    let mut queue = driver.queue(subject.expect.queue);
    let size = queue.size();
    queue.make_available(size);
    queue.notify();
    driver.wait_needs_reset();
    let mut driver = driver.power_cycle();
    assert!(!driver.needs_reset());
    subject.recover(&mut driver);
}
