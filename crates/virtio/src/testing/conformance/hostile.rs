//! Malicious drivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::Subject;
use crate::testing::{Buf, ChangingRam, DEADLINE, Random, Register, features};

/// All truncations of the request's chain. The device responds or needs a reset.
pub fn short_requests_are_survived(subject: &Subject) {
    let mut driver = subject.running(0);
    let (readable, writable) = (subject.expect.readable, subject.expect.writable);
    let mut shorter = vec![(0, 0)];
    shorter.extend((0..=readable.len().min(64)).map(|len| (len, 0)));
    shorter.extend((0..=readable.len().min(64)).map(|len| (len, 1)));
    shorter.extend([1, 2, writable / 2, writable.saturating_sub(1)].map(|len| (readable.len(), len)));
    for (read, write) in shorter {
        let bufs = [Buf::Read(&readable[..read]), Buf::Write(write.min(writable))];
        let mut queue = driver.queue(subject.expect.queue);
        queue.add(&bufs);
        queue.notify();
        driver.suspend();
        driver.resume();
        if driver.needs_reset() || driver.queue(subject.expect.queue).try_used().is_none() {
            driver.init(0);
        }
    }
    subject.recover(&mut driver);
}

/// The same head twice in the available ring: the device serves it twice or needs a reset.
pub fn chain_made_available_twice_is_survived(subject: &Subject) {
    let mut driver = subject.running(0);
    let size = subject.expect.queues[subject.expect.queue];
    for _ in 0..5 {
        let mut queue = driver.queue(subject.expect.queue);
        let head = queue.add(&subject.bufs());
        (1..size).for_each(|_| queue.make_available(head));
        queue.notify();
        driver.suspend();
        assert!(driver.queue(subject.expect.queue).used_index() <= size);
        driver.resume();
        driver.init(0);
    }
    subject.recover(&mut driver);
}

/// A second vCPU overwrites descriptors, rings and buffers while the device uses them.
pub fn memory_that_changes_under_the_device_is_survived(subject: &Subject) {
    what_changes_after_its_read_is_used_as_it_was(subject);
    what_changes_at_random_is_survived(subject);
}

/// Whatever the device reads is overwritten before it can be read again. The device serves the request only
/// if it uses exactly what it has validated.
fn what_changes_after_its_read_is_used_as_it_was(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    let _changing = ChangingRam::new(driver.ram());
    // A device without data to return leaves the chain in the queue, and validates it again later.
    if subject.expect.readable.is_empty() {
        subject.send(&mut driver);
        driver.suspend();
        driver.resume();
        return;
    }
    subject.serve(&mut driver);
    let mut queue = driver.queue(subject.expect.queue);
    queue.add_indirect(&subject.bufs());
    queue.kick();
    subject.receive(&mut driver);
}

fn what_changes_at_random_is_survived(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    let mut random = Random::new(1);
    for round in 0..40 {
        if driver.needs_reset() {
            driver.init(features::INDIRECT);
        }
        let mut queue = driver.queue(subject.expect.queue);
        let [descriptors, available, used] = queue.addresses();
        (0..queue.free().min(8)).for_each(|_| _ = queue.add_indirect(&subject.bufs()));
        let buffers = queue.buffer(0) - 0x1000;
        let size = u64::from(queue.size());
        let places = [(descriptors, 16 * size), (available, 4 + 2 * size), (used, 4), (buffers, 0x1000)];
        let ram = driver.ram().clone();
        let is_done = Arc::new(AtomicBool::new(false));
        let vandal = {
            let (is_done, random) = (Arc::clone(&is_done), Random::new(random.bits()));
            std::thread::spawn(move || vandalize(&ram, &places, random, &is_done))
        };
        (0..50).for_each(|_| driver.queue(subject.expect.queue).notify());
        driver.suspend();
        is_done.store(true, Ordering::Relaxed);
        vandal.join().expect("it only writes");
        driver.resume();
        // Heads that were never available may have been used, so the driver's view of the rings is invalid.
        if round % 2 == 0 {
            driver.init(features::INDIRECT);
        }
    }
    subject.recover(&mut driver);
}

fn vandalize(ram: &GuestRam, places: &[(u64, u64)], mut random: Random, is_done: &AtomicBool) {
    while !is_done.load(Ordering::Relaxed) {
        let (start, len) = random.of(places);
        let gpa = GuestAddress(start + random.below(len) / 2 * 2);
        // Small numbers are more likely to be valid flags, indices and lengths.
        let value = if random.below(2) == 0 { random.below(8) } else { random.bits() };
        let _ = ram.memory().store(value as u16, gpa, Ordering::Relaxed);
    }
}

/// A second vCPU makes each chain available again when it is used. A stop and a reset must still complete.
pub fn chains_without_end_do_not_hold_up_a_stop(subject: &Subject) {
    let mut driver = subject.running(0);
    let mut queue = driver.queue(subject.expect.queue);
    let [_, available, used] = queue.addresses();
    let size = queue.size();
    let chains = size / subject.bufs().len() as u16;
    (0..chains).for_each(|_| _ = queue.add(&subject.bufs()));
    let endless = Endless { available, used, size, next_available: chains, next_used: 0 };
    let (is_done, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let thread = {
        let (ram, port) = (driver.ram().clone(), driver.port().clone());
        let (is_done, turns) = (Arc::clone(&is_done), Arc::clone(&turns));
        let queue = subject.expect.queue as u32;
        std::thread::spawn(move || {
            let mut endless = endless;
            while !is_done.load(Ordering::Relaxed) {
                turns.fetch_add(endless.turn(&ram), Ordering::Relaxed);
                let _ = port.write(Register::QueueNotify, queue);
            }
        })
    };
    for stop in 1..=3 {
        wait_for(&turns, stop * u64::from(size));
        driver.suspend();
        driver.resume();
    }
    wait_for(&turns, 4 * u64::from(size));
    // The device must complete the reset while the other vCPU continues.
    driver.write(Register::Status, 0);
    assert_eq!(driver.status(), 0);
    is_done.store(true, Ordering::Relaxed);
    thread.join().expect("it only writes");
    subject.recover(&mut driver);
}

fn wait_for(turns: &AtomicU64, count: u64) {
    let until = Instant::now() + DEADLINE;
    while turns.load(Ordering::Relaxed) < count {
        assert!(Instant::now() < until, "chains are served");
        std::thread::yield_now();
    }
}

/// What a driver needs to resubmit used chains at once.
struct Endless {
    available: u64,
    used: u64,
    size: u16,
    next_available: u16,
    next_used: u16,
}

impl Endless {
    /// Number of used chains.
    fn turn(&mut self, ram: &GuestRam) -> u64 {
        let memory = ram.memory();
        let index = memory.load(GuestAddress(self.used + 2), Ordering::Acquire).map(u16::from_le);
        let index = index.expect("it is memory");
        let count = index.wrapping_sub(self.next_used);
        for _ in 0..count {
            let element = self.used + 4 + 8 * u64::from(self.next_used % self.size);
            let head: u32 = memory.read_obj(GuestAddress(element)).expect("it is memory");
            let place = self.available + 4 + 2 * u64::from(self.next_available % self.size);
            memory.write_obj(head as u16, GuestAddress(place)).expect("it is memory");
            (self.next_used, self.next_available) =
                (self.next_used.wrapping_add(1), self.next_available.wrapping_add(1));
        }
        let stored =
            memory.store(self.next_available.to_le(), GuestAddress(self.available + 2), Ordering::Release);
        stored.expect("it is memory");
        count.into()
    }
}
