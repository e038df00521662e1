//! A split virtqueue from its driver's side (virtio 1.2 §2.7).

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use virtio_bindings::bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::ring::{DESCRIPTOR_LEN, InFlight, Ring};
use super::{DEADLINE, Driver, Register, features};

/// Initial value of the bytes in a buffer for the device.
pub const UNWRITTEN: u8 = 0xee;

/// A buffer of a chain; "read" and "write" from the device's view. Readable ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf<'a> {
    /// The device reads these bytes.
    Read(&'a [u8]),
    /// The device writes up to this many bytes, which are initially [`UNWRITTEN`].
    Write(u32),
    /// The device reads this many bytes at this guest-physical address, which needn't be memory.
    ReadAt(u64, u32),
    /// The device writes to this address. Not part of [`Used::bytes`].
    WriteAt(u64, u32),
}

/// A used chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head returned by [`Rings::add`].
    pub head: u16,
    /// The used length that the device reported.
    pub len: u32,
    /// The contents of all [`Buf::Write`] buffers, including bytes that the device hasn't written.
    pub bytes: Vec<u8>,
}

impl Used {
    /// The bytes that the device reported as written.
    ///
    /// # Panics
    /// The reported length exceeds the buffers.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

/// A descriptor as laid out in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u32,
    /// VIRTQ_DESC_F_: 1 is NEXT, 2 is WRITE, 4 is INDIRECT.
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// Encodes it.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A queue of a [`Driver`].
#[derive(Debug)]
pub struct Rings<'a> {
    driver: &'a mut Driver,
    index: usize,
}

impl Driver {
    /// The queue with this index.
    ///
    /// # Panics
    /// There is no such queue.
    pub fn queue(&mut self, index: usize) -> Rings<'_> {
        assert!(index < self.rings.len(), "the device has {} queues", self.rings.len());
        Rings { driver: self, index }
    }
}

impl Rings<'_> {
    /// Makes a chain of direct descriptors available, and returns its head. The device isn't notified.
    ///
    /// # Panics
    /// There aren't enough free descriptors or memory.
    pub fn add(&mut self, bufs: &[Buf<'_>]) -> u16 {
        let mut chain = InFlight::default();
        let free = self.ring().free.len();
        assert!(!bufs.is_empty() && bufs.len() <= free, "{} buffers, {free} descriptors", bufs.len());
        chain.descriptors = self.ring_mut().free.split_off(free - bufs.len());
        chain.descriptors.reverse();
        let mut descriptors = self.place(bufs, &mut chain);
        let places = chain.descriptors.clone();
        for (n, descriptor) in descriptors.iter_mut().enumerate() {
            descriptor.next = places.get(n + 1).copied().unwrap_or(0);
            self.write_descriptor(places[n], *descriptor);
        }
        self.publish(places[0], chain)
    }

    /// [`add`](Self::add) with an indirect descriptor table.
    ///
    /// # Panics
    /// As for [`add`](Self::add).
    pub fn add_indirect(&mut self, bufs: &[Buf<'_>]) -> u16 {
        let mut chain = InFlight::default();
        let mut descriptors = self.place(bufs, &mut chain);
        for (n, descriptor) in descriptors.iter_mut().enumerate() {
            descriptor.next = n as u16 + 1;
        }
        let table = self.write_table(&descriptors);
        chain.buffers += 1;
        let head = self.ring_mut().free.pop().expect("a free descriptor");
        chain.descriptors = vec![head];
        let len = DESCRIPTOR_LEN as u32 * descriptors.len() as u32;
        let flags = VRING_DESC_F_INDIRECT as u16;
        self.write_descriptor(head, Descriptor { gpa: table, len, flags, next: 0 });
        self.publish(head, chain)
    }

    /// Notifies the device if it wants a notification (EVENT_IDX or VIRTQ_USED_F_NO_NOTIFY). Returns whether
    /// it did.
    pub fn kick(&mut self) -> bool {
        // Store the available index before reading the device's fields; the device does the opposite.
        fence(Ordering::SeqCst);
        let ring = self.ring();
        let (new, old) = (ring.next_available, ring.rung);
        let rings = if self.has_event_idx() {
            let event = self.load(ring.used + 4 + 8 * u64::from(ring.size));
            // vring_need_event (virtio 1.2 §2.7.10).
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            u32::from(self.load(ring.used)) & VRING_USED_F_NO_NOTIFY == 0
        };
        self.ring_mut().rung = new;
        if rings {
            self.notify();
        }
        rings
    }

    /// Notifies the device unconditionally, without [`kick`](Self::kick) knowing.
    pub fn notify(&self) {
        self.driver.write(Register::QueueNotify, self.index as u32);
    }

    /// Takes the next used chain, if any.
    ///
    /// # Panics
    /// The device returned a chain that it didn't own.
    pub fn try_used(&mut self) -> Option<Used> {
        let ring = self.ring();
        if self.used_index() == ring.next_used {
            return None;
        }
        fence(Ordering::Acquire);
        let element = ring.used + 4 + 8 * u64::from(ring.next_used % ring.size);
        let element = self.driver.arena.read(element, 8);
        let (head, len) = element.split_at(4);
        let head = u32::from_le_bytes(head.try_into().expect("4 bytes"));
        let len = u32::from_le_bytes(len.try_into().expect("4 bytes"));
        let ring = self.ring_mut();
        ring.next_used = ring.next_used.wrapping_add(1);
        let head = u16::try_from(head).expect("a head has 16 bits");
        let Some(chain) = ring.chains.remove(&head) else { panic!("chain {head} isn't the device's") };
        ring.free.extend(chain.descriptors.into_iter().rev());
        let arena = &mut self.driver.arena;
        let bytes = chain.writable.iter().flat_map(|(gpa, len)| arena.read(*gpa, (*len).into())).collect();
        arena.release(chain.buffers);
        Some(Used { head, len, bytes })
    }

    /// Waits for an interrupt until a chain was used, and takes it.
    ///
    /// # Panics
    /// No chain is used or no interrupt reports it by the [`DEADLINE`]; interrupts are off; or as for
    /// [`try_used`](Self::try_used).
    pub fn wait_used(&mut self) -> Used {
        let Some(used) = self.wait_used_for(DEADLINE) else {
            let (used, next) = (self.used_index(), self.ring().next_used);
            panic!("no interrupt for a used chain: index {used}, {next} taken, {:#x}", self.driver.status());
        };
        used
    }

    /// [`wait_used`](Self::wait_used) with a different deadline; `None` if it passes.
    ///
    /// # Panics
    /// Interrupts are off; or as for [`try_used`](Self::try_used).
    pub fn wait_used_for(&mut self, time: Duration) -> Option<Used> {
        assert!(!self.ring().no_interrupts, "interrupts are off: use poll_used()");
        let until = Instant::now() + time;
        loop {
            if let Some(used) = self.try_used() {
                return Some(used);
            }
            if self.has_event_idx() {
                let ring = self.ring();
                self.set_used_event(ring.next_used);
                fence(Ordering::SeqCst);
                if self.used_index() != self.ring().next_used {
                    continue;
                }
            }
            if !self.driver.wait_interrupt(until) {
                return None;
            }
        }
    }

    /// Takes the next used chain, polling the ring instead of waiting for an interrupt.
    ///
    /// # Panics
    /// No chain is used by the [`DEADLINE`]; or as for [`try_used`](Self::try_used).
    pub fn poll_used(&mut self) -> Used {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(used) = self.try_used() {
                return used;
            }
            assert!(Instant::now() < until, "no chain is used; status {:#x}", self.driver.status());
            std::thread::yield_now();
        }
    }

    /// Waits until the device has written this used index, without taking its interrupt.
    ///
    /// # Panics
    /// It hasn't by the [`DEADLINE`].
    pub fn poll_used_index(&self, index: u16) {
        let until = Instant::now() + DEADLINE;
        while self.used_index() != index {
            assert!(Instant::now() < until, "the used index is {}, not {index}", self.used_index());
            std::thread::yield_now();
        }
    }

    /// Adds a chain, notifies the device and waits for the chain.
    ///
    /// # Panics
    /// As for those methods, or another chain is used first.
    pub fn request(&mut self, bufs: &[Buf<'_>]) -> Used {
        let head = self.add(bufs);
        self.kick();
        let used = self.wait_used();
        assert_eq!(used.head, head, "another chain came back");
        used
    }

    /// Enables or disables interrupts: with EVENT_IDX by used_event half a ring away, otherwise by
    /// VIRTQ_AVAIL_F_NO_INTERRUPT.
    pub fn set_interrupts(&mut self, are_on: bool) {
        self.ring_mut().no_interrupts = !are_on;
        let ring = self.ring();
        if self.has_event_idx() {
            let away = if are_on { 0 } else { 0x8000 };
            self.set_used_event(ring.next_used.wrapping_add(away));
        } else {
            let flags = if are_on { 0 } else { VRING_AVAIL_F_NO_INTERRUPT as u16 };
            self.store(ring.available, flags);
        }
    }

    /// Writes used_event (virtio 1.2 §2.7.7.1).
    pub fn set_used_event(&self, index: u16) {
        let ring = self.ring();
        self.store(ring.available + 4 + 2 * u64::from(ring.size), index);
    }

    /// Number of descriptors; 0 if the queue isn't set up.
    pub fn size(&self) -> u16 {
        self.ring().size
    }

    /// Number of free descriptors.
    pub fn free(&self) -> usize {
        self.ring().free.len()
    }

    /// The used index, as written by the device.
    pub fn used_index(&self) -> u16 {
        self.load(self.ring().used + 2)
    }

    /// The published available index.
    pub fn available_index(&self) -> u16 {
        self.load(self.ring().available + 2)
    }

    /// Addresses of the descriptor table, the available ring and the used ring.
    pub fn addresses(&self) -> [u64; 3] {
        let ring = self.ring();
        [ring.descriptors, ring.available, ring.used]
    }

    /// Overwrites a descriptor in the table, even one in use.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        let gpa = self.ring().descriptors + DESCRIPTOR_LEN * u64::from(index);
        self.driver.arena.write(gpa, &descriptor.to_bytes());
    }

    /// Writes an indirect descriptor table to newly allocated memory and returns its address.
    pub fn write_table(&mut self, descriptors: &[Descriptor]) -> u64 {
        let bytes: Vec<_> = descriptors.iter().flat_map(|descriptor| descriptor.to_bytes()).collect();
        let gpa = self.driver.arena.buffer(bytes.len() as u64);
        self.driver.arena.write(gpa, &bytes);
        gpa
    }

    /// Allocates `len` bytes, each [`UNWRITTEN`].
    pub fn buffer(&mut self, len: u32) -> u64 {
        let gpa = self.driver.arena.buffer(len.into());
        self.driver.arena.fill(gpa, len.into(), UNWRITTEN);
        gpa
    }

    /// Writes to memory that [`buffer`](Self::buffer) returned.
    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) {
        self.driver.arena.write(gpa, bytes);
    }

    /// Publishes `head` in the available ring without checks. If it is used, [`try_used`](Self::try_used)
    /// treats it as a chain without buffers.
    pub fn make_available(&mut self, head: u16) {
        self.publish(head, InFlight::default());
    }

    /// Publishes an available index without checks.
    pub fn set_available_index(&mut self, index: u16) {
        self.ring_mut().next_available = index;
        fence(Ordering::Release);
        self.store(self.ring().available + 2, index);
    }

    fn publish(&mut self, head: u16, chain: InFlight) -> u16 {
        let ring = self.ring_mut();
        ring.chains.insert(head, chain);
        let (index, place) = (ring.next_available.wrapping_add(1), ring.next_available % ring.size);
        let gpa = ring.available + 4 + 2 * u64::from(place);
        self.store(gpa, head);
        self.set_available_index(index);
        head
    }

    /// Allocates the buffers and converts them to descriptors, with NEXT set but `next` open.
    fn place(&mut self, bufs: &[Buf<'_>], chain: &mut InFlight) -> Vec<Descriptor> {
        let mut descriptors = Vec::with_capacity(bufs.len());
        for buf in bufs {
            let (gpa, len, flags) = match *buf {
                Buf::Read(bytes) => {
                    let gpa = self.driver.arena.buffer(bytes.len() as u64);
                    self.driver.arena.write(gpa, bytes);
                    (gpa, bytes.len() as u32, 0)
                }
                Buf::Write(len) => {
                    let gpa = self.buffer(len);
                    chain.writable.push((gpa, len));
                    (gpa, len, VRING_DESC_F_WRITE)
                }
                Buf::ReadAt(gpa, len) => (gpa, len, 0),
                Buf::WriteAt(gpa, len) => (gpa, len, VRING_DESC_F_WRITE),
            };
            chain.buffers += usize::from(matches!(buf, Buf::Read(_) | Buf::Write(_)));
            let flags = (flags | VRING_DESC_F_NEXT) as u16;
            descriptors.push(Descriptor { gpa, len, flags, next: 0 });
        }
        if let Some(last) = descriptors.last_mut() {
            last.flags &= !(VRING_DESC_F_NEXT as u16);
        }
        descriptors
    }

    fn has_event_idx(&self) -> bool {
        self.driver.features & features::EVENT_IDX != 0
    }

    fn ring(&self) -> &Ring {
        &self.driver.rings[self.index]
    }

    fn ring_mut(&mut self) -> &mut Ring {
        &mut self.driver.rings[self.index]
    }

    fn load(&self, gpa: u64) -> u16 {
        let value = self.driver.ram().memory().load(GuestAddress(gpa), Ordering::Acquire);
        u16::from_le(value.expect("a ring of its own is memory"))
    }

    fn store(&self, gpa: u64, value: u16) {
        let stored = self.driver.ram().memory().store(value.to_le(), GuestAddress(gpa), Ordering::Release);
        stored.expect("a ring of its own is memory");
    }
}
