//! Rings at invalid addresses.

use super::Subject;
use crate::Fault;
use crate::testing::arena::{HIGH_END, LOW_END};
use crate::testing::{Driver, Register};

/// The registers of one ring's address.
type Halves = (Register, Register);

const DESCRIPTORS: Halves = (Register::QueueDescLow, Register::QueueDescHigh);
const AVAILABLE: Halves = (Register::QueueDriverLow, Register::QueueDriverHigh);
const USED: Halves = (Register::QueueDeviceLow, Register::QueueDeviceHigh);

/// Starts a driver whose queue is set up correctly except for `change`.
fn started(subject: &Subject, change: impl FnOnce(&Driver)) -> Driver {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.place_queue(subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    change(&driver);
    driver.write(Register::QueueReady, 1);
    driver.driver_ok();
    driver
}

fn put(driver: &Driver, (low, high): Halves, gpa: u64) {
    driver.write(low, gpa as u32);
    driver.write(high, (gpa >> 32) as u32);
}

fn breaks(subject: &Subject, ring: Halves, gpa: u64) {
    let mut driver = started(subject, |driver| put(driver, ring, gpa));
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::Rings { queue: subject.expect.queue }));
    driver.write(Register::QueueNotify, subject.expect.queue as u32);
    driver.suspend();
    driver.resume();
    assert!(driver.needs_reset());
    subject.recover(&mut driver);
}

pub fn descriptors_outside_memory_need_reset(subject: &Subject) {
    breaks(subject, DESCRIPTORS, HIGH_END);
}

/// virtio 1.2 §2.7: 16 bytes.
pub fn descriptors_misaligned_need_reset(subject: &Subject) {
    breaks(subject, DESCRIPTORS, 0x10_0008);
}

pub fn available_ring_outside_memory_needs_reset(subject: &Subject) {
    breaks(subject, AVAILABLE, HIGH_END - 2);
}

/// virtio 1.2 §2.7: 2 bytes.
pub fn available_ring_misaligned_needs_reset(subject: &Subject) {
    breaks(subject, AVAILABLE, 0x10_0001);
}

pub fn used_ring_outside_memory_needs_reset(subject: &Subject) {
    breaks(subject, USED, 0x8000_0000);
}

/// virtio 1.2 §2.7: 4 bytes.
pub fn used_ring_misaligned_needs_reset(subject: &Subject) {
    breaks(subject, USED, 0x10_0002);
}

pub fn used_ring_across_the_gap_needs_reset(subject: &Subject) {
    breaks(subject, USED, LOW_END - 4);
}

pub fn rings_at_the_end_of_addresses_need_reset(subject: &Subject) {
    breaks(subject, DESCRIPTORS, !15);
    breaks(subject, AVAILABLE, !1);
    breaks(subject, USED, !3);
}

/// The device overwrites its own input: the used ring overlaps the available ring and the descriptors.
pub fn rings_one_over_the_other_are_survived(subject: &Subject) {
    let one = 0x10_0000;
    for offset in [0, 4, 16] {
        let mut driver = started(subject, |driver| {
            put(driver, DESCRIPTORS, one);
            put(driver, AVAILABLE, one + offset);
            put(driver, USED, one);
        });
        for index in [1, 2, 0xffff] {
            let memory = driver.ram().memory();
            let gpa = vmm_memory::vm_memory::GuestAddress(one + offset + 2);
            vmm_memory::vm_memory::Bytes::write_obj(memory, index, gpa).expect("it is memory");
            driver.write(Register::QueueNotify, subject.expect.queue as u32);
            driver.suspend();
            driver.resume();
        }
        subject.recover(&mut driver);
    }
}

pub fn queue_that_is_not_ready_is_left_alone(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.place_queue(subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    driver.driver_ok();
    subject.send(&mut driver);
    driver.suspend();
    driver.resume();
    let queue = driver.queue(subject.expect.queue);
    assert_eq!(queue.used_index(), 0);
    assert!(!driver.needs_reset());
    subject.recover(&mut driver);
}
