//! What only the MMIO transport has: registers of 32 bits at fixed offsets of a page.

use super::Subject;
use super::registers::scribble;
use crate::MMIO_LEN;
use crate::testing::{Driver, Random, Register, features, status};

pub fn registers_say_what_it_is(subject: &Subject) {
    let driver = subject.driver();
    assert_eq!(driver.read(Register::MagicValue), u32::from_le_bytes(*b"virt"));
    assert_eq!(driver.read(Register::Version), 2);
    assert_eq!(driver.read(Register::DeviceId), subject.expect.id);
    assert_eq!(driver.read(Register::Status), 0);
    assert_eq!(driver.read(Register::InterruptStatus), 0);
}

/// virtio 1.2 §4.2.2.2: a driver may clear QueueReady. PCI's queue_enable has no such meaning.
pub fn queue_made_unready_can_be_changed(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    let (index, size) = (subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    driver.set_up_queue(index, size);
    driver.write(Register::QueueReady, 0);
    assert_eq!(driver.read(Register::QueueReady), 0);
    scribble(&driver);
    driver.set_up_queue(index, size);
    driver.driver_ok();
    subject.serve(&mut driver);
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
pub(super) fn feature_selectors_at_their_extremes_reach_nothing(subject: &Subject) {
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

pub fn accesses_of_any_width_at_any_offset_are_survived(subject: &Subject) {
    let mut driver = subject.running(0);
    for width in [1, 2, 4, 8] {
        for offset in 0..=MMIO_LEN - width as u64 {
            super::read_and_write(&driver, offset, width);
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
        driver.read_bytes(offset, &mut [0xff; 8][..width]);
    } else {
        driver.write_bytes(offset, &value.to_le_bytes()[..width]);
    }
}
