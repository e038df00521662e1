//! Descriptor chains, validated completely before a device sees them.

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::segment::Segment;
use crate::{Buffers, Fault};

/// Size of a descriptor in a table, in bytes (virtio 1.2 §2.7.5).
const DESCRIPTOR_LEN: u32 = 16;

/// Identifies a chain when it is returned. Only a [`Queue`](crate::Queue) creates one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head(pub(crate) u16);

impl Head {
    /// Index of the chain's first descriptor.
    pub fn index(self) -> u16 {
        self.0
    }
}

/// A descriptor chain (virtio 1.2 §2.7.5): a device-readable part, then a device-writable part.
///
/// Every descriptor was read exactly once and points to RAM. The bytes in it still belong to the guest, which
/// may change them at any time: copy first, then validate the copy.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    head: Head,
    readable: Buffers<'a>,
    writable: Buffers<'a>,
    /// Number of descriptors read for it.
    pub(crate) descriptors: u32,
}

impl<'a> Chain<'a> {
    /// A chain of the given readable and writable segments, all of which are RAM.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_segments(
        ram: &'a GuestRam,
        (readable, writable): (&'a [Segment], &'a [Segment]),
    ) -> Self {
        let descriptors = (readable.len() + writable.len()) as u32;
        let (readable, writable) = (Buffers::new(ram, readable), Buffers::new(ram, writable));
        Self { head: Head(0), readable, writable, descriptors }
    }

    /// For [`Queue::complete`](crate::Queue::complete).
    pub fn head(&self) -> Head {
        self.head
    }

    /// The device-readable part.
    pub fn readable(&self) -> Buffers<'a> {
        self.readable
    }

    /// The device-writable part.
    pub fn writable(&self) -> Buffers<'a> {
        self.writable
    }
}

/// Reads one chain at a time; its memory is reused for the next.
#[derive(Debug)]
pub(crate) struct Walker {
    segments: Vec<Segment>,
    size: u16,
}

/// A descriptor table.
#[derive(Clone, Copy)]
struct Table {
    gpa: u64,
    count: u32,
    is_indirect: bool,
}

struct Descriptor {
    gpa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// Reads the descriptor once, so that what is validated is what is used.
    fn read(ram: &GuestRam, table: Table, index: u32) -> Result<Self, Fault> {
        let gpa = table.gpa.checked_add(u64::from(index) * u64::from(DESCRIPTOR_LEN));
        let gpa = gpa.ok_or(Fault::Unmapped { gpa: table.gpa, len: DESCRIPTOR_LEN })?;
        let bytes: [u8; 16] = ram
            .memory()
            .read_obj(GuestAddress(gpa))
            .map_err(|_| Fault::Unmapped { gpa, len: DESCRIPTOR_LEN })?;
        #[cfg(any(test, feature = "testing"))]
        crate::testing::was_read(ram, ram.memory().get_slice(GuestAddress(gpa), bytes.len()).ok());
        let [a, b, c, d, e, f, g, h, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Ok(Self {
            gpa: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }

    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

impl Walker {
    /// For a queue of `size` descriptors, the maximum length of a chain (virtio 1.2 §2.7.5.3.1).
    pub(crate) fn new(size: u16) -> Self {
        Self { segments: Vec::with_capacity(size.into()), size }
    }

    /// Reads the chain that starts at `head` in the queue's descriptor table at `table`.
    pub(crate) fn walk<'a>(
        &'a mut self,
        ram: &'a GuestRam,
        table: u64,
        head: u16,
        indirect: bool,
    ) -> Result<Chain<'a>, Fault> {
        self.segments.clear();
        let mut table = Table { gpa: table, count: self.size.into(), is_indirect: false };
        let mut index = u32::from(head);
        // Descriptors seen, not counting the one that points to an indirect table.
        let mut seen = 0;
        let mut readable = None;
        loop {
            if index >= table.count {
                return Err(Fault::DescriptorIndex { index, count: table.count });
            }
            let descriptor = Descriptor::read(ram, table, index)?;
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                table = self.indirect(&descriptor, table, indirect)?;
                index = 0;
                continue;
            }
            // Checked for each descriptor, so that a loop ends.
            if seen == u32::from(self.size) {
                return Err(Fault::ChainTooLong { size: self.size });
            }
            seen += 1;
            match (descriptor.has(VRING_DESC_F_WRITE), readable) {
                (true, None) => readable = Some(self.segments.len()),
                (false, Some(_)) => return Err(Fault::ReadableBehindWritable),
                _ => {}
            }
            self.push(ram, &descriptor)?;
            if !descriptor.has(VRING_DESC_F_NEXT) {
                break;
            }
            index = descriptor.next.into();
        }
        let (readable, writable) = self.segments.split_at(readable.unwrap_or(self.segments.len()));
        Ok(Chain {
            head: Head(head),
            readable: Buffers::new(ram, readable),
            writable: Buffers::new(ram, writable),
            descriptors: seen,
        })
    }

    /// The indirect table that a descriptor points to (virtio 1.2 §2.7.5.3).
    fn indirect(&self, descriptor: &Descriptor, from: Table, negotiated: bool) -> Result<Table, Fault> {
        if !negotiated {
            return Err(Fault::IndirectNotNegotiated);
        }
        // It must not be in an indirect table or have NEXT set. Direct descriptors may precede it.
        if from.is_indirect || descriptor.has(VRING_DESC_F_NEXT) {
            return Err(Fault::IndirectMisplaced);
        }
        if descriptor.len == 0 || !descriptor.len.is_multiple_of(DESCRIPTOR_LEN) {
            return Err(Fault::IndirectLength { len: descriptor.len });
        }
        // `next` has 16 bits: descriptors after the first 65,536 can't be reached.
        let count = descriptor.len / DESCRIPTOR_LEN;
        Ok(Table { gpa: descriptor.gpa, count, is_indirect: true })
    }

    fn push(&mut self, ram: &GuestRam, descriptor: &Descriptor) -> Result<(), Fault> {
        let &Descriptor { gpa, len, .. } = descriptor;
        if len == 0 {
            return Ok(());
        }
        if !ram.memory().check_range(GuestAddress(gpa), len as usize) {
            return Err(Fault::Unmapped { gpa, len });
        }
        self.segments.push(Segment { gpa, len });
        Ok(())
    }
}
