//! Malformed chains: the device sets DEVICE_NEEDS_RESET and works after a reset.

use super::Subject;
use crate::Fault;
use crate::testing::arena::{HIGH, HIGH_END, LOW_END};
use crate::testing::{Descriptor, Driver, Rings, features};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Otherwise unused memory.
const BUFFER: u64 = HIGH;

fn descriptor(gpa: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { gpa, len, flags, next }
}

/// Applies `wrong` to the queue and notifies the device, which must report the fault, do nothing more, and
/// work after a reset.
fn breaks(subject: &Subject, features: u64, fault: Fault, wrong: impl FnOnce(&mut Rings<'_>)) {
    let mut driver = subject.running(features);
    subject.serve(&mut driver);
    let mut queue = driver.queue(subject.expect.queue);
    wrong(&mut queue);
    queue.notify();
    is_broken(subject, &mut driver, fault);
}

fn is_broken(subject: &Subject, driver: &mut Driver, fault: Fault) {
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(fault));
    assert_eq!(driver.control().counters().faults.get(), 1);
    let queue = driver.queue(subject.expect.queue);
    let used = queue.used_index();
    queue.notify();
    // Afterwards the device has finished all work.
    driver.suspend();
    driver.resume();
    assert_eq!(driver.queue(subject.expect.queue).used_index(), used, "nothing is served any more");
    subject.recover(driver);
}

/// [`breaks`] with these descriptors at the start of the queue's table.
fn chain_breaks(subject: &Subject, fault: Fault, descriptors: &[Descriptor]) {
    breaks(subject, 0, fault, |queue| {
        (0..).zip(descriptors).for_each(|(index, descriptor)| queue.write_descriptor(index, *descriptor));
        queue.make_available(0);
    });
}

/// [`breaks`] with a descriptor, after negotiating VIRTIO_F_INDIRECT_DESC.
fn indirect_breaks(subject: &Subject, fault: Fault, descriptor: Descriptor) {
    breaks(subject, features::INDIRECT, fault, |queue| {
        queue.write_descriptor(0, descriptor);
        queue.make_available(0);
    });
}

/// [`breaks`] with the contents of an indirect table.
fn table_breaks(subject: &Subject, fault: Fault, table: &[Descriptor]) {
    breaks(subject, features::INDIRECT, fault, |queue| {
        let gpa = queue.write_table(table);
        queue.write_descriptor(0, descriptor(gpa, 16 * table.len() as u32, INDIRECT, 0));
        queue.make_available(0);
    });
}

fn size(subject: &Subject) -> u16 {
    subject.expect.queues[subject.expect.queue]
}

pub fn chain_with_a_loop_needs_reset(subject: &Subject) {
    let fault = Fault::ChainTooLong { size: size(subject) };
    chain_breaks(subject, fault, &[descriptor(BUFFER, 1, NEXT, 1), descriptor(BUFFER, 1, NEXT, 0)]);
}

pub fn chain_with_next_out_of_range_needs_reset(subject: &Subject) {
    let count = size(subject);
    let fault = Fault::DescriptorIndex { index: count.into(), count: count.into() };
    chain_breaks(subject, fault, &[descriptor(BUFFER, 1, NEXT, count)]);
}

pub fn chain_with_its_head_out_of_range_needs_reset(subject: &Subject) {
    let fault = Fault::DescriptorIndex { index: 0xffff, count: size(subject).into() };
    breaks(subject, 0, fault, |queue| queue.make_available(0xffff));
}

pub fn chain_with_a_readable_behind_a_writable_needs_reset(subject: &Subject) {
    let chain = [descriptor(BUFFER, 1, NEXT | WRITE, 1), descriptor(BUFFER, 1, 0, 0)];
    chain_breaks(subject, Fault::ReadableBehindWritable, &chain);
}

/// An indirect table can be longer than the queue, a chain can't (virtio 1.2 §2.7.5.3.1).
pub fn chain_longer_than_the_queue_needs_reset(subject: &Subject) {
    let size = size(subject);
    let table: Vec<_> =
        (0..=size).map(|n| descriptor(BUFFER, 1, NEXT * u16::from(n < size), n + 1)).collect();
    table_breaks(subject, Fault::ChainTooLong { size }, &table);
}

pub fn indirect_without_negotiation_needs_reset(subject: &Subject) {
    chain_breaks(subject, Fault::IndirectNotNegotiated, &[descriptor(BUFFER, 16, INDIRECT, 0)]);
}

pub fn indirect_in_indirect_needs_reset(subject: &Subject) {
    table_breaks(subject, Fault::IndirectMisplaced, &[descriptor(BUFFER, 16, INDIRECT, 0)]);
}

pub fn indirect_with_next_needs_reset(subject: &Subject) {
    indirect_breaks(subject, Fault::IndirectMisplaced, descriptor(BUFFER, 16, INDIRECT | NEXT, 1));
}

pub fn indirect_of_no_length_needs_reset(subject: &Subject) {
    indirect_breaks(subject, Fault::IndirectLength { len: 0 }, descriptor(BUFFER, 0, INDIRECT, 0));
}

pub fn indirect_of_half_a_descriptor_needs_reset(subject: &Subject) {
    indirect_breaks(subject, Fault::IndirectLength { len: 24 }, descriptor(BUFFER, 24, INDIRECT, 0));
}

pub fn indirect_table_outside_memory_needs_reset(subject: &Subject) {
    let fault = Fault::Unmapped { gpa: LOW_END, len: 16 };
    indirect_breaks(subject, fault, descriptor(LOW_END, 16, INDIRECT, 0));
}

pub fn indirect_table_at_the_end_of_addresses_needs_reset(subject: &Subject) {
    let fault = Fault::Unmapped { gpa: u64::MAX, len: 16 };
    indirect_breaks(subject, fault, descriptor(u64::MAX, 0xffff_fff0, INDIRECT, 0));
}

pub fn indirect_table_with_next_out_of_range_needs_reset(subject: &Subject) {
    let fault = Fault::DescriptorIndex { index: 1, count: 1 };
    table_breaks(subject, fault, &[descriptor(BUFFER, 1, NEXT, 1)]);
}

pub fn indirect_table_with_a_loop_needs_reset(subject: &Subject) {
    let fault = Fault::ChainTooLong { size: size(subject) };
    table_breaks(subject, fault, &[descriptor(BUFFER, 1, NEXT, 0)]);
}

/// Buffers that aren't entirely in memory, in each direction.
fn buffer_breaks(subject: &Subject, gpa: u64, len: u32) {
    chain_breaks(subject, Fault::Unmapped { gpa, len }, &[descriptor(gpa, len, 0, 0)]);
    chain_breaks(subject, Fault::Unmapped { gpa, len }, &[descriptor(gpa, len, WRITE, 0)]);
}

pub fn buffer_past_the_end_of_memory_needs_reset(subject: &Subject) {
    buffer_breaks(subject, HIGH_END, 1);
}

pub fn buffer_across_the_end_of_memory_needs_reset(subject: &Subject) {
    buffer_breaks(subject, HIGH_END - 8, 9);
}

pub fn buffer_into_the_gap_needs_reset(subject: &Subject) {
    buffer_breaks(subject, LOW_END - 1, 2);
}

pub fn buffer_across_the_end_of_addresses_needs_reset(subject: &Subject) {
    buffer_breaks(subject, u64::MAX, 2);
}

/// From below the gap to above it; only its ends are memory.
pub fn buffer_of_4_gib_needs_reset(subject: &Subject) {
    buffer_breaks(subject, 0x1000, u32::MAX);
}

pub fn available_index_that_jumps_needs_reset(subject: &Subject) {
    let index = 1 + size(subject) + 1;
    breaks(subject, 0, Fault::AvailableIndex, |queue| queue.set_available_index(index));
}

pub fn available_index_that_goes_back_needs_reset(subject: &Subject) {
    breaks(subject, 0, Fault::AvailableIndex, |queue| queue.set_available_index(0));
}
