//! The bytes of a chain, accessed without Rust references.

use vmm_hostio::{GuestBytes, GuestRange};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{ByteValued, GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::Fault;
use crate::segment::Segment;

/// One direction of a chain, or a part of it: a sequence of bytes in guest RAM.
///
/// Offsets are relative to its start. The guest may change the bytes at any time.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    ram: &'a GuestRam,
    segments: &'a [Segment],
    /// Bytes of the first segment that precede it.
    skip: u64,
    len: u64,
}

impl<'a> Buffers<'a> {
    pub(crate) fn new(ram: &'a GuestRam, segments: &'a [Segment]) -> Self {
        let len = segments.iter().map(|segment| u64::from(segment.len)).sum();
        Self { ram, segments, skip: 0, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether its length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits after `at` bytes. `None` if there are fewer.
    pub fn split_at(&self, at: u64) -> Option<(Self, Self)> {
        let rest_len = self.len.checked_sub(at)?;
        let first = Self { len: at, ..*self };
        let mut skip = self.skip + at;
        let mut segments = self.segments;
        while let Some((segment, rest)) = segments.split_first()
            && skip >= u64::from(segment.len)
        {
            skip -= u64::from(segment.len);
            segments = rest;
        }
        Some((first, Self { segments, skip, len: rest_len, ..*self }))
    }

    /// Guest-physical address of the first byte, which is RAM; `None` if empty. For a device that keeps the
    /// chain and later has to find the byte by its address alone.
    pub fn gpa(&self) -> Option<u64> {
        (self.len > 0).then(|| self.segments.first().map(|segment| segment.gpa + self.skip)).flatten()
    }

    /// Splits before the last `count` bytes. `None` if there are fewer.
    pub fn split_end(&self, count: u64) -> Option<(Self, Self)> {
        self.split_at(self.len.checked_sub(count)?)
    }

    /// Fills `bytes` from the start.
    ///
    /// # Errors
    /// [`Fault::TooShort`] if there are fewer.
    pub fn read(&self, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut at = 0;
        self.each(bytes.len() as u64, |slice| {
            at += slice.copy_to(&mut bytes[at..]);
            #[cfg(any(test, feature = "testing"))]
            crate::testing::was_read(self.ram, Some(slice));
            Ok(())
        })
    }

    /// Reads a plain structure from the start.
    ///
    /// # Errors
    /// [`Fault::TooShort`] if there are fewer bytes.
    pub fn read_obj<T: ByteValued + Default>(&self) -> Result<T, Fault> {
        let mut object = T::default();
        self.read(object.as_mut_slice())?;
        Ok(object)
    }

    /// Copies all of `bytes` to the start.
    ///
    /// # Errors
    /// [`Fault::TooShort`] if there is less room.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        self.each(bytes.len() as u64, |slice| {
            slice.copy_from(&bytes[at..]);
            at += slice.len();
            Ok(())
        })
    }

    /// Calls `each` with the pieces in order, as slices that the guest may change concurrently.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn slices(&self, each: impl FnMut(VolatileSlice<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
        self.each(self.len, each)
    }

    fn each(
        &self,
        len: u64,
        mut each: impl FnMut(VolatileSlice<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if len > self.len {
            return Err(Fault::TooShort { len: self.len, needed: len });
        }
        for GuestRange { gpa, len } in self.first(len) {
            // A range may span two adjacent regions.
            for slice in self.ram.memory().get_slices(GuestAddress(gpa), len as usize) {
                each(slice.map_err(|_| Fault::Unmapped { gpa, len: len as u32 })?)?;
            }
        }
        Ok(())
    }

    /// The first `len` bytes as ranges, one per segment.
    fn first(&self, len: u64) -> impl Iterator<Item = GuestRange> {
        let (mut skip, mut left) = (self.skip, len);
        self.segments.iter().map_while(move |segment| {
            let len = (u64::from(segment.len) - skip).min(left);
            let range = (left > 0).then_some(GuestRange { gpa: segment.gpa + skip, len });
            (skip, left) = (0, left - len);
            range
        })
    }
}

impl GuestBytes for Buffers<'_> {
    fn ram(&self) -> &GuestRam {
        self.ram
    }

    fn ranges(&self) -> impl Iterator<Item = GuestRange> {
        self.first(self.len)
    }
}
