//! Register accesses in every wrong order.

use super::Subject;
use crate::Fault;
use crate::testing::{Descriptor, Driver, Register, features, status};

/// The queue's registers except QueueReady.
const QUEUE: [Register; 7] = [
    Register::QueueSize,
    Register::QueueDescLow,
    Register::QueueDescHigh,
    Register::QueueDriverLow,
    Register::QueueDriverHigh,
    Register::QueueDeviceLow,
    Register::QueueDeviceHigh,
];

pub fn queue_before_features_ok_is_not_set_up(subject: &Subject) {
    let driver = subject.driver();
    driver.write(Register::QueueSel, subject.expect.queue as u32);
    for bits in [0, status::ACKNOWLEDGE, status::DRIVER] {
        driver.add_status(bits);
        driver.write(Register::QueueReady, 1);
        assert_eq!(driver.read(Register::QueueReady), 0, "with status {:#x}", driver.status());
    }
}

pub fn queue_behind_driver_ok_is_frozen(subject: &Subject) {
    let mut driver = subject.running(0);
    driver.write(Register::QueueSel, subject.expect.queue as u32);
    scribble(&driver);
    driver.write(Register::QueueReady, 0);
    assert_eq!(driver.read(Register::QueueReady), 1);
    scribble(&driver);
    subject.serve(&mut driver);
    // Nor is it used after a suspend and resume.
    driver.suspend();
    driver.resume();
    subject.serve(&mut driver);
}

pub fn queue_that_is_ready_is_frozen(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.set_up_queue(subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    scribble(&driver);
    driver.driver_ok();
    subject.serve(&mut driver);
}

pub(super) fn scribble(driver: &Driver) {
    for register in QUEUE {
        for value in [0, 1, 2, 0xffff_ffff] {
            driver.write(register, value);
        }
    }
}

pub fn features_behind_features_ok_are_frozen(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.write_features(features::VERSION_1 | features::INDIRECT);
    driver.set_up_queue(subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    driver.write_features(features::VERSION_1 | features::INDIRECT);
    driver.driver_ok();
    driver.write_features(features::VERSION_1 | features::INDIRECT);
    let mut queue = driver.queue(subject.expect.queue);
    queue.write_descriptor(0, Descriptor { gpa: 0x1000, len: 16, flags: 4, next: 0 });
    queue.make_available(0);
    queue.notify();
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::IndirectNotNegotiated));
}

pub fn features_before_driver_are_ignored(subject: &Subject) {
    let driver = subject.driver();
    driver.write_features(features::VERSION_1);
    driver.add_status(status::ACKNOWLEDGE);
    driver.write_features(features::VERSION_1);
    driver.add_status(status::DRIVER);
    driver.add_status(status::FEATURES_OK);
    assert_eq!(driver.status() & status::FEATURES_OK, 0, "without VERSION_1");
}

pub fn status_bits_out_of_order_are_ignored(subject: &Subject) {
    let mut driver = subject.driver();
    for bits in [status::DRIVER, status::FEATURES_OK, status::DRIVER_OK, status::NEEDS_RESET, 0x30] {
        driver.write(Register::Status, bits.into());
        assert_eq!(driver.status(), 0, "{bits:#x} was written to a fresh device");
    }
    driver.write(Register::Status, (status::ACKNOWLEDGE | status::FEATURES_OK | status::DRIVER_OK).into());
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
    driver.write(Register::Status, (status::DRIVER | status::DRIVER_OK).into());
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER);
    subject.recover(&mut driver);
}

pub fn status_bits_cannot_be_cleared(subject: &Subject) {
    let mut driver = subject.running(0);
    let all = driver.status();
    for bits in [1, 2, 4, 8, 0x10, 0x40] {
        driver.write(Register::Status, bits);
        assert_eq!(driver.status(), all);
    }
    driver.write(Register::Status, status::FAILED.into());
    assert_eq!(driver.status(), all | status::FAILED);
    subject.recover(&mut driver);
}

pub fn notification_in_any_state_is_harmless(subject: &Subject) {
    let mut driver = subject.driver();
    let notify = |driver: &Driver| {
        (0..=subject.expect.queues.len() as u32).for_each(|queue| driver.write(Register::QueueNotify, queue));
    };
    notify(&driver);
    assert!(driver.negotiate(0));
    notify(&driver);
    driver.driver_ok();
    notify(&driver);
    driver.reset();
    notify(&driver);
    subject.recover(&mut driver);
}
