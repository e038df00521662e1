//! A device's configuration space (virtio 1.2 §2.5).

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The device's configuration, shared by device and transport. Clones refer to the same bytes.
#[derive(Clone, Debug)]
pub struct ConfigSpace(Arc<Space>);

#[derive(Debug)]
struct Space {
    bytes: Mutex<Vec<u8>>,
    /// The bytes that the driver may write.
    writable: Range<usize>,
    /// Value of `writable` after a reset.
    initial: Vec<u8>,
    /// Adjusts the initial bytes to the negotiated features.
    negotiated: Option<Negotiated>,
    generation: AtomicU32,
    /// Number of writes by the driver.
    writes: AtomicU32,
}

/// Called with the whole space and the accepted features.
type Negotiated = fn(&mut [u8], u64);

impl ConfigSpace {
    /// A space that a driver can only read.
    pub fn read_only(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(bytes, 0..0)
    }

    /// A space whose bytes in `writable` the driver may write.
    pub fn new(bytes: impl Into<Vec<u8>>, writable: Range<usize>) -> Self {
        Self::with_negotiation(bytes, writable, None)
    }

    /// A space whose initial bytes depend on the accepted features: `negotiated` changes them at FEATURES_OK,
    /// before the driver reads them.
    pub fn negotiated(bytes: impl Into<Vec<u8>>, writable: Range<usize>, negotiated: Negotiated) -> Self {
        Self::with_negotiation(bytes, writable, Some(negotiated))
    }

    fn with_negotiation(
        bytes: impl Into<Vec<u8>>,
        writable: Range<usize>,
        negotiated: Option<Negotiated>,
    ) -> Self {
        let bytes = bytes.into();
        let initial = bytes.get(writable.clone()).unwrap_or_default().to_vec();
        Self(Arc::new(Space {
            bytes: Mutex::new(bytes),
            writable,
            initial,
            negotiated,
            generation: AtomicU32::new(0),
            writes: AtomicU32::new(0),
        }))
    }

    /// Changes the bytes on behalf of the device. [`Session::config_changed`](crate::Session::config_changed)
    /// notifies the driver.
    pub fn update<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut bytes = self.bytes();
        // Under the lock: a driver that reads a new byte then reads a new generation (virtio 1.2 §2.5.1).
        self.0.generation.fetch_add(1, Ordering::Release);
        change(&mut bytes)
    }

    /// Fills `into` from `offset`, with zeros beyond the end.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(0);
        let bytes = self.bytes();
        let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        into.iter_mut().zip(from.unwrap_or_default()).for_each(|(into, byte)| *into = *byte);
    }

    /// A write by the driver. Returns whether all of it is writable; otherwise it has no effect.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> bool {
        let range =
            usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(from.len())?));
        let writable = &self.0.writable;
        let range = range.filter(|range| writable.start <= range.start && range.end <= writable.end);
        let mut bytes = self.bytes();
        match range.and_then(|range| bytes.get_mut(range)) {
            Some(into) => {
                into.copy_from_slice(from);
                self.0.writes.fetch_add(1, Ordering::Release);
                true
            }
            None => false,
        }
    }

    /// Number of writes by the driver, modulo 2^32. A device that compares it before each chain notices every
    /// write that preceded the chain, without taking a lock.
    pub fn writes(&self) -> u32 {
        self.0.writes.load(Ordering::Acquire)
    }

    /// Called at FEATURES_OK.
    pub(crate) fn negotiate(&self, features: u64) {
        if let Some(negotiated) = self.0.negotiated {
            negotiated(&mut self.bytes(), features);
        }
    }

    /// Restores the writable bytes to their initial value.
    pub(crate) fn reset(&self) {
        let mut bytes = self.bytes();
        if let Some(into) = bytes.get_mut(self.0.writable.clone()) {
            into.copy_from_slice(&self.0.initial);
        }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// All bytes, and the generation.
    pub(crate) fn image(&self) -> (Vec<u8>, u32) {
        let bytes = self.bytes();
        (bytes.clone(), self.generation())
    }

    /// Restores what the driver had written when [`image`](Self::image) returned `bytes`, of the same length, and `generation`. If the
    /// device's own bytes are others now, this is the next generation.
    pub(crate) fn restore(&self, image: &[u8], generation: u32) {
        let mut bytes = self.bytes();
        let writable = self.0.writable.clone();
        if let (Some(into), Some(from)) = (bytes.get_mut(writable.clone()), image.get(writable)) {
            into.copy_from_slice(from);
        }
        let generation = if *bytes == image { generation } else { generation.wrapping_add(1) };
        self.0.generation.store(generation, Ordering::Release);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        // A device that panics in `update` must not make the vCPU that reads panic, too.
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_past_the_end_gives_zeros() {
        let space = ConfigSpace::read_only([1, 2, 3]);
        let mut bytes = [9; 4];
        space.read(2, &mut bytes);
        assert_eq!(bytes, [3, 0, 0, 0]);
        space.read(u64::MAX, &mut bytes);
        assert_eq!(bytes, [0; 4]);
    }

    #[test]
    fn write_reaches_only_what_is_writable() {
        let space = ConfigSpace::new([0; 8], 4..6);
        assert!(space.write(4, &[1, 2]));
        assert!(!space.write(5, &[7, 7]) && !space.write(0, &[7]) && !space.write(u64::MAX, &[7]));
        let mut bytes = [0; 8];
        space.read(0, &mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn reset_restores_what_was_written_and_nothing_else() {
        let space = ConfigSpace::new([1, 2, 3, 4], 1..3);
        assert!(space.write(1, &[8, 9]));
        space.update(|bytes| bytes[3] = 7);
        space.reset();
        let mut bytes = [0; 4];
        space.read(0, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 7]);
    }

    #[test]
    fn negotiation_changes_the_first_value_until_the_reset() {
        let space = ConfigSpace::negotiated([5], 0..1, |bytes, features| bytes[0] = features as u8);
        let mut byte = [0];
        space.negotiate(3);
        space.read(0, &mut byte);
        assert_eq!(byte, [3]);
        space.reset();
        space.read(0, &mut byte);
        assert_eq!(byte, [5]);
    }

    #[test]
    fn writes_counts_those_of_the_driver_that_reach_something() {
        let space = ConfigSpace::new([0; 4], 1..3);
        assert!(space.write(1, &[8]) && !space.write(0, &[8]));
        space.update(|bytes| bytes[0] = 1);
        assert_eq!(space.writes(), 1);
    }

    #[test]
    fn image_restored_has_what_the_driver_wrote_and_its_generation() {
        let (saved, fresh) = (ConfigSpace::new([1, 2], 1..2), ConfigSpace::new([1, 2], 1..2));
        saved.update(|_| ());
        assert!(saved.write(1, &[9]));
        let (bytes, generation) = saved.image();
        fresh.restore(&bytes, generation);
        assert_eq!(fresh.image(), (vec![1, 9], 1));
        fresh.reset();
        assert_eq!(fresh.image().0, [1, 2], "a reset undoes it");
    }

    #[test]
    fn image_restored_over_other_bytes_is_another_generation() {
        let fresh = ConfigSpace::new([7, 2], 1..2);
        fresh.restore(&[1, 9], 5);
        assert_eq!(fresh.image(), (vec![7, 9], 6));
    }

    #[test]
    fn update_makes_a_new_generation() {
        let space = ConfigSpace::read_only([0]);
        space.update(|bytes| bytes[0] = 1);
        assert_eq!(space.generation(), 1);
    }
}
