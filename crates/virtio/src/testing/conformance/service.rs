//! The request is served whatever its layout in descriptors.

use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::Subject;
use crate::testing::arena::{HIGH, LOW};
use crate::testing::{Buf, Descriptor, Driver, Register, features};

pub fn request_is_served(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    subject.serve(&mut driver);
}

pub fn request_with_event_idx_is_served(subject: &Subject) {
    let mut driver = subject.running(features::EVENT_IDX);
    subject.serve(&mut driver);
    subject.serve(&mut driver);
}

pub fn request_in_an_indirect_table_is_served(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    let mut queue = driver.queue(subject.expect.queue);
    queue.add_indirect(&subject.bufs());
    queue.kick();
    subject.receive(&mut driver);
}

/// virtio 1.2 §2.7.5.3.2: direct descriptors may precede the one with the indirect table.
pub fn request_behind_a_descriptor_in_an_indirect_table_is_served(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    let mut queue = driver.queue(subject.expect.queue);
    let room = subject.expect.writable;
    let gpa = queue.buffer(room);
    let table = queue.write_table(&[Descriptor { gpa, len: room, flags: 2, next: 0 }]);
    let readable = queue.buffer(subject.expect.readable.len() as u32);
    queue.write_bytes(readable, subject.expect.readable);
    let len = subject.expect.readable.len() as u32;
    queue.write_descriptor(0, Descriptor { gpa: readable, len, flags: 1, next: 1 });
    queue.write_descriptor(1, Descriptor { gpa: table, len: 16, flags: 4, next: 0 });
    queue.make_available(0);
    queue.notify();
    assert_eq!(queue.wait_used().len, subject.expect.written);
}

/// virtio 1.2 §2.7.4: a device must not rely on descriptor boundaries.
pub fn request_in_any_number_of_descriptors_is_served(subject: &Subject) {
    let mut driver = subject.running(0);
    let most = usize::from(driver.queue(subject.expect.queue).size() / 2);
    for pieces in [1, 2, 3, 5, 7, most].into_iter().filter(|pieces| *pieces <= most) {
        let bufs = in_pieces(subject, pieces);
        subject.check(&driver.queue(subject.expect.queue).request(&bufs));
    }
}

/// Splits each direction of the request into this many descriptors, or one per byte if there are fewer bytes.
fn in_pieces(subject: &Subject, pieces: usize) -> Vec<Buf<'static>> {
    let readable = subject.expect.readable;
    let writable = subject.expect.writable as usize;
    let starts = |len: usize| {
        let pieces = pieces.min(len);
        (0..pieces).map(move |n| (len * n / pieces, len * (n + 1) / pieces))
    };
    let reads = starts(readable.len()).map(|(from, to)| Buf::Read(&readable[from..to]));
    let writes = starts(writable).map(|(from, to)| Buf::Write((to - from) as u32));
    reads.chain(writes).collect()
}

pub fn request_with_descriptors_of_length_zero_is_served(subject: &Subject) {
    let mut driver = subject.running(0);
    let mut bufs = vec![Buf::Read(&[])];
    bufs.extend(subject.bufs());
    let place = bufs.iter().position(|buf| matches!(buf, Buf::Write(_))).unwrap_or(bufs.len());
    bufs.insert(place, Buf::ReadAt(u64::MAX, 0));
    bufs.push(Buf::WriteAt(0, 0));
    subject.check(&driver.queue(subject.expect.queue).request(&bufs));
}

pub fn request_across_two_regions_is_served(subject: &Subject) {
    let mut driver = subject.running(0);
    request_at(subject, &mut driver, LOW - subject.expect.readable.len() as u64 / 2, HIGH);
    request_at(subject, &mut driver, HIGH, LOW - u64::from(subject.expect.writable / 2));
}

pub fn request_above_4_gib_is_served(subject: &Subject) {
    let mut driver = subject.running(0);
    request_at(subject, &mut driver, HIGH, HIGH + 0x8_0000);
}

fn request_at(subject: &Subject, driver: &mut Driver, readable: u64, writable: u64) {
    let (bytes, room) = (subject.expect.readable, subject.expect.writable);
    let mut answer = vec![super::super::UNWRITTEN; room as usize];
    driver.ram().memory().write_slice(bytes, GuestAddress(readable)).expect("it is memory");
    driver.ram().memory().write_slice(&answer, GuestAddress(writable)).expect("it is memory");
    let bufs = [Buf::ReadAt(readable, bytes.len() as u32), Buf::WriteAt(writable, room)];
    let used = driver.queue(subject.expect.queue).request(&bufs);
    assert_eq!(used.len, subject.expect.written);
    driver.ram().memory().read_slice(&mut answer, GuestAddress(writable)).expect("it is memory");
    (subject.expect.check)(&answer);
}

pub fn queue_full_of_requests_is_served(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    let mut queue = driver.queue(subject.expect.queue);
    let size = queue.size();
    (0..size).for_each(|_| _ = queue.add_indirect(&subject.bufs()));
    queue.kick();
    // A chain that isn't in flight would panic, so each is used exactly once.
    (0..size).for_each(|_| subject.check(&queue.wait_used()));
    assert_eq!(queue.used_index(), size);
}

pub fn queue_of_the_smallest_size_serves(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    let size = (subject.bufs().len() as u16).next_power_of_two();
    driver.set_up_queue(subject.expect.queue, size);
    driver.driver_ok();
    (0..5).for_each(|_| subject.serve(&mut driver));
}

pub fn queue_of_no_possible_size_keeps_its_own(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    let (index, max) = (subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    driver.place_queue(index, max);
    for size in [0, 3, u32::from(max) * 2, 1 << 16, 1 << 31, u32::MAX] {
        driver.write(Register::QueueSize, size);
    }
    driver.write(Register::QueueReady, 1);
    driver.driver_ok();
    // Once around the rings at full size, and one more.
    (0..=max).for_each(|_| subject.serve(&mut driver));
}

pub fn interrupts_switched_off_stay_off(subject: &Subject) {
    interrupts_stay_off(subject, 0);
}

pub fn interrupts_switched_off_by_event_idx_stay_off(subject: &Subject) {
    interrupts_stay_off(subject, features::EVENT_IDX);
}

fn interrupts_stay_off(subject: &Subject, features: u64) {
    let mut driver = subject.running(features);
    let mut queue = driver.queue(subject.expect.queue);
    queue.set_interrupts(false);
    for _ in 0..5 {
        queue.add(&subject.bufs());
        queue.kick();
        subject.check(&queue.poll_used());
    }
    // Afterwards the device has finished all work.
    driver.suspend();
    assert_eq!(driver.interrupts(), 0);
    driver.resume();
    driver.queue(subject.expect.queue).set_interrupts(true);
    subject.serve(&mut driver);
}

pub fn interrupt_comes_when_used_event_is_passed(subject: &Subject) {
    let mut driver = subject.running(features::EVENT_IDX);
    let mut queue = driver.queue(subject.expect.queue);
    // The fourth chain passes used_event, which is 3.
    queue.set_used_event(3);
    for _ in 0..3 {
        queue.add(&subject.bufs());
        queue.kick();
        subject.check(&queue.poll_used());
    }
    driver.suspend();
    assert_eq!(driver.interrupts(), 0);
    driver.resume();
    subject.send(&mut driver);
    driver.wait_any_interrupt();
    subject.check(
        &driver.queue(subject.expect.queue).try_used().expect("a chain was used before the interrupt"),
    );
}
