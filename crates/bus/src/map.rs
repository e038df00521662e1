//! The map from addresses to devices.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::{BusDevice, Outcome};

/// Errors from [`Bus::insert`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The range is empty or exceeds the address space.
    #[error("bus range {start:#x}+{len:#x} is empty or runs past the last address")]
    BadRange {
        /// Start of the requested range.
        start: u64,
        /// Length of the requested range in bytes.
        len: u64,
    },
    /// The range overlaps another device's range.
    #[error("bus range {start:#x}+{len:#x} overlaps the device at {other_start:#x}+{other_len:#x}")]
    Overlap {
        /// Start of the requested range.
        start: u64,
        /// Length of the requested range in bytes.
        len: u64,
        /// Start of the other device's range.
        other_start: u64,
        /// Length of the other device's range in bytes.
        other_len: u64,
    },
}

#[derive(Clone)]
struct BusRange {
    start: u64,
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// A published map: entries sorted by start, disjoint.
#[derive(Clone, Default)]
struct Map(Vec<BusRange>);

impl Map {
    /// The entry that contains the whole access, and the access's offset in it. An access that crosses the
    /// end of a range has none, because no PC device decodes half of a cycle.
    fn find(&self, addr: u64, len: usize) -> Option<(&BusRange, u64)> {
        let after = self.0.partition_point(|e| e.start <= addr);
        let range = &self.0[after.checked_sub(1)?];
        let offset = addr - range.start;
        let end = offset.checked_add(len as u64)?;
        (end <= range.len).then_some((range, offset))
    }
}

/// An address space with devices.
///
/// Changes are rare and publish a new map, which views use from their next access on.
#[derive(Default)]
pub struct Bus {
    map: Arc<ArcSwap<Map>>,
}

impl Bus {
    /// An empty bus: reads return all ones, writes are dropped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Assigns the `len` addresses from `start` on to `device`.
    ///
    /// # Errors
    /// The range is empty, wraps around, or overlaps another device's. The bus is then unchanged.
    pub fn insert(&self, start: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), Error> {
        let last = len.checked_sub(1).and_then(|l| start.checked_add(l));
        let Some(last) = last else {
            return Err(Error::BadRange { start, len });
        };
        let mut map = Map::clone(&self.map.load());
        if let Some(other) = map.0.iter().find(|e| e.start <= last && start <= e.start + (e.len - 1)) {
            let (other_start, other_len) = (other.start, other.len);
            return Err(Error::Overlap { start, len, other_start, other_len });
        }
        let at = map.0.partition_point(|e| e.start < start);
        map.0.insert(at, BusRange { start, len, device });
        self.map.store(Arc::new(map));
        Ok(())
    }

    /// A view for one vCPU.
    pub fn view(&self) -> BusView {
        BusView { cache: Cache::new(Arc::clone(&self.map)) }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map.load();
        f.debug_list().entries(map.0.iter().map(|e| format!("{:#x}+{:#x}", e.start, e.len))).finish()
    }
}

/// A reader's reference to the bus. A lookup is a binary search without a lock.
pub struct BusView {
    cache: Cache<Arc<ArcSwap<Map>>, Arc<Map>>,
}

impl BusView {
    /// Reads `data.len()` bytes at `addr`: all ones unless one device claims the whole access.
    pub fn read(&mut self, addr: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((range, offset)) = self.cache.load().find(addr, data.len()) {
            range.device.read(offset, data);
        }
    }

    /// Whether the device at `addr` still needs a vCPU to wait ([`BusDevice::is_holding`]).
    pub fn is_holding(&mut self, addr: u64) -> bool {
        self.cache.load().find(addr, 1).is_some_and(|(range, _)| range.device.is_holding())
    }

    /// Writes `data` to `addr`. The write is dropped unless one device claims the whole access.
    pub fn write(&mut self, addr: u64, data: &[u8]) -> Outcome {
        match self.cache.load().find(addr, data.len()) {
            Some((range, offset)) => range.device.write(offset, data),
            None => Outcome::Done,
        }
    }
}

impl fmt::Debug for BusView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusView").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Records the offsets written, and reads as its tag.
    struct Tag(u8, Mutex<Vec<u64>>);

    impl BusDevice for Tag {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data[0] = self.0;
        }
        fn write(&self, offset: u64, _data: &[u8]) -> Outcome {
            self.1.lock().unwrap().push(offset);
            Outcome::Hold
        }
    }

    fn tag(t: u8) -> Arc<Tag> {
        Arc::new(Tag(t, Mutex::new(Vec::new())))
    }

    #[test]
    fn read_claimed_fills_only_what_the_device_decodes() {
        let bus = Bus::new();
        bus.insert(0x10, 4, tag(7)).unwrap();
        let mut data = [0; 2];
        bus.view().read(0x10, &mut data);
        assert_eq!(data, [7, 0xff]);
    }

    #[test]
    fn access_straddling_the_end_of_a_range_is_unclaimed() {
        let bus = Bus::new();
        let device = tag(7);
        bus.insert(0x10, 4, device.clone()).unwrap();
        let mut data = [0; 4];
        bus.view().read(0x12, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(bus.view().write(0x12, &[0; 4]), Outcome::Done);
        assert!(device.1.lock().unwrap().is_empty());
    }

    #[test]
    fn write_reaches_the_device_with_its_offset_and_returns_its_outcome() {
        let bus = Bus::new();
        let device = tag(7);
        bus.insert(0x3f8, 8, device.clone()).unwrap();
        assert_eq!(bus.view().write(0x3fd, &[1]), Outcome::Hold);
        assert_eq!(*device.1.lock().unwrap(), [5]);
    }

    #[test]
    fn view_taken_before_an_insert_sees_it() {
        let bus = Bus::new();
        let mut view = bus.view();
        bus.insert(0, 1, tag(9)).unwrap();
        let mut data = [0];
        view.read(0, &mut data);
        assert_eq!(data, [9]);
    }

    #[test]
    fn insert_overlap_is_refused_and_names_both() {
        let bus = Bus::new();
        bus.insert(0x10, 0x10, tag(1)).unwrap();
        let error = bus.insert(0x1f, 2, tag(2)).unwrap_err();
        assert_eq!(error.to_string(), "bus range 0x1f+0x2 overlaps the device at 0x10+0x10");
    }

    #[test]
    fn insert_empty_or_wrapping_is_refused() {
        let bus = Bus::new();
        assert_eq!(bus.insert(5, 0, tag(1)), Err(Error::BadRange { start: 5, len: 0 }));
        let past = bus.insert(u64::MAX, 2, tag(1));
        assert_eq!(past, Err(Error::BadRange { start: u64::MAX, len: 2 }));
    }

    #[test]
    fn the_last_address_can_be_claimed() {
        let bus = Bus::new();
        bus.insert(u64::MAX, 1, tag(3)).unwrap();
        let mut data = [0];
        bus.view().read(u64::MAX, &mut data);
        assert_eq!(data, [3]);
    }

    proptest! {
        /// A lookup always agrees with a linear search.
        #[test]
        fn lookup_agrees_with_a_linear_search(
            ranges in prop::collection::vec((0u64..64, 1u64..8), 0..12),
            addr in 0u64..80,
            len in prop::sample::select(vec![1usize, 2, 4, 8]),
        ) {
            let bus = Bus::new();
            let mut accepted = Vec::new();
            for (i, (start, range_len)) in ranges.into_iter().enumerate() {
                if bus.insert(start, range_len, tag(i as u8)).is_ok() {
                    accepted.push((start, range_len, i as u8));
                }
            }
            let expected = accepted
                .iter()
                .find(|(s, l, _)| *s <= addr && addr + len as u64 <= s + l)
                .map_or(0xff, |(_, _, t)| *t);
            let mut data = vec![0; len];
            bus.view().read(addr, &mut data);
            prop_assert_eq!(data[0], expected);
        }
    }
}
