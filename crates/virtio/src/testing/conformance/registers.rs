//! Register accesses in every wrong order and at every wrong offset.

use vmm_bus::BusDevice;

use super::Subject;
use crate::testing::{Descriptor, Driver, Random, Register, features, status};
use crate::{Fault, MMIO_LEN};

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

fn scribble(driver: &Driver) {
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

pub fn selectors_at_their_extremes_reach_nothing(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    let count = subject.expect.queues.len() as u32;
    for index in [count, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        driver.write(Register::QueueSel, index);
        assert_eq!(driver.read(Register::QueueSizeMax), 0);
        scribble(&driver);
        driver.write(Register::QueueReady, 1);
        assert_eq!(driver.read(Register::QueueReady), 0);
        driver.write(Register::QueueNotify, index);
        // Nor does any write reach the queue with the same low bits.
        (0..count).for_each(|queue| {
            driver.write(Register::QueueSel, queue);
            assert_eq!(driver.read(Register::QueueReady), 0, "queue {queue}, by selector {index:#x}");
        });
    }
    driver.init(0);
    subject.serve(&mut driver);
    feature_selectors_at_their_extremes_reach_nothing(subject);
}

/// The driver negotiates VERSION_1 alone, and then writes ones through selectors with the low bits of a valid
/// one.
fn feature_selectors_at_their_extremes_reach_nothing(subject: &Subject) {
    let mut driver = subject.driver();
    driver.add_status(status::ACKNOWLEDGE | status::DRIVER);
    driver.write_features(features::VERSION_1);
    for select in [2, 0x100, 0x101, 0xffff, 0x1_0000, 0x1_0001, 0x8000_0000, 0x8000_0001, 0xffff_ffff] {
        driver.write(Register::DeviceFeaturesSel, select);
        assert_eq!(driver.read(Register::DeviceFeatures), 0);
        driver.write(Register::DriverFeaturesSel, select);
        driver.write(Register::DriverFeatures, 0xffff_ffff);
    }
    driver.add_status(status::FEATURES_OK);
    assert_ne!(driver.status() & status::FEATURES_OK, 0, "features that weren't offered were taken");
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

pub fn accesses_of_any_width_at_any_offset_are_survived(subject: &Subject) {
    let mut driver = subject.running(0);
    for width in [1, 2, 4, 8] {
        for offset in 0..=MMIO_LEN - width as u64 {
            let mut bytes = [0xff; 8];
            driver.transport().read(offset, &mut bytes[..width]);
            driver.write_bytes(offset, &[0xff; 8][..width]);
        }
    }
    subject.recover(&mut driver);
}

pub fn accesses_at_random_are_survived(subject: &Subject) {
    let mut driver = subject.driver();
    for seed in 0..20 {
        let mut random = Random::new(seed);
        (0..500).for_each(|_| access(&driver, &mut random));
    }
    subject.recover(&mut driver);
}

/// Mostly valid registers with meaningful values.
fn access(driver: &Driver, random: &mut Random) {
    let offset = match random.below(8) {
        0 => random.below(MMIO_LEN),
        1 => Register::Status as u64,
        _ => random.below(0x108 / 4) * 4,
    };
    let width = if random.below(8) > 0 { 4 } else { random.of(&[1, 2, 4, 8]) };
    let offset = offset.min(MMIO_LEN - width as u64);
    let value = match random.below(4) {
        0 => random.bits(),
        1 => random.of(&[0, u64::MAX, 1 << 31, 1 << 32, 0x1000]),
        _ => random.below(16),
    };
    if random.below(3) == 0 {
        driver.transport().read(offset, &mut [0xff; 8][..width]);
    } else {
        driver.write_bytes(offset, &value.to_le_bytes()[..width]);
    }
}
