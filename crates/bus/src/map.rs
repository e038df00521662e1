//! The map from addresses to devices.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Cache};

use crate::{BusDevice, Outcome};

/// Errors from [`Bus::insert`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The range is empty.
    #[error("bus range {:#x}..{:#x} is empty", .0.start, .0.end)]
    Empty(Range<u64>),
    /// The range overlaps another device's range.
    #[error("bus range {:#x}..{:#x} overlaps the device at {:#x}..{:#x}", range.start, range.end, other.start, other.end)]
    Overlap {
        /// The requested range.
        range: Range<u64>,
        /// The other device's range.
        other: Range<u64>,
    },
}

#[derive(Clone)]
struct BusRange {
    range: Range<u64>,
    device: Arc<dyn BusDevice>,
}

/// A published map: entries sorted by start, disjoint.
#[derive(Clone, Default)]
struct Map(Vec<BusRange>);

impl Map {
    /// The entry that contains the whole access, and the access's offset in it. An access that crosses the
    /// end of a range has none, because no PC device decodes half of a cycle.
    fn find(&self, addr: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let after = self.0.partition_point(|entry| entry.range.start <= addr);
        let BusRange { range, device } = &self.0[after.checked_sub(1)?];
        let end = addr.checked_add(len as u64)?;
        (end <= range.end).then_some((&**device, addr - range.start))
    }
}

/// An address space with devices.
///
/// Changes are rare and publish a new map, which views use from their next access on. Clones are the same address space.
#[derive(Clone, Default)]
pub struct Bus {
    map: Arc<ArcSwap<Map>>,
    /// Held while a new map is made from the current one.
    changing: Arc<Mutex<()>>,
}

impl Bus {
    /// An empty bus: reads return all ones, writes are dropped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Assigns the addresses `range` to `device`: ports 0 to 0xffff on a bus of ports, guest-physical addresses on one of
    /// MMIO. A device that its caller needs afterwards is passed as a clone of its [`Arc`].
    ///
    /// # Errors
    /// The range is empty or overlaps another device's. The bus is then unchanged.
    pub fn insert(&self, range: Range<u64>, device: impl BusDevice + 'static) -> Result<(), Error> {
        if range.is_empty() {
            return Err(Error::Empty(range));
        }
        let _changing = self.changing.lock().expect("no panic while it is held");
        let mut map = Map::clone(&self.map.load());
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        if let Some(BusRange { range: other, .. }) = map.0.iter().find(|entry| overlaps(&entry.range)) {
            return Err(Error::Overlap { range, other: other.clone() });
        }
        let at = map.0.partition_point(|entry| entry.range.start < range.start);
        map.0.insert(at, BusRange { range, device: Arc::new(device) });
        self.map.store(Arc::new(map));
        Ok(())
    }

    /// Takes the device at `start` off the bus. Returns whether one starts there.
    pub fn remove(&self, start: u64) -> bool {
        let _changing = self.changing.lock().expect("no panic while it is held");
        let mut map = Map::clone(&self.map.load());
        let before = map.0.len();
        map.0.retain(|entry| entry.range.start != start);
        let is_removed = map.0.len() != before;
        if is_removed {
            self.map.store(Arc::new(map));
        }
        is_removed
    }

    /// A view for one vCPU.
    pub fn view(&self) -> BusView {
        BusView { cache: Cache::new(Arc::clone(&self.map)) }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map.load();
        f.debug_list()
            .entries(
                map.0.iter().map(|BusRange { range, .. }| format!("{:#x}..{:#x}", range.start, range.end)),
            )
            .finish()
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
        if let Some((device, offset)) = self.cache.load().find(addr, data.len()) {
            device.read(offset, data);
        }
    }

    /// Whether the device at `addr` still needs a vCPU to wait ([`BusDevice::is_holding`]).
    pub fn is_holding(&mut self, addr: u64) -> bool {
        self.cache.load().find(addr, 1).is_some_and(|(device, _)| device.is_holding())
    }

    /// Writes `data` to `addr`. The write is dropped unless one device claims the whole access.
    pub fn write(&mut self, addr: u64, data: &[u8]) -> Outcome {
        match self.cache.load().find(addr, data.len()) {
            Some((device, offset)) => device.write(offset, data),
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
        fn is_holding(&self) -> bool {
            true
        }
    }

    fn tag(t: u8) -> Arc<Tag> {
        Arc::new(Tag(t, Mutex::new(Vec::new())))
    }

    #[test]
    fn read_claimed_fills_only_what_the_device_decodes() {
        let bus = Bus::new();
        bus.insert(0x10..0x14, tag(7)).unwrap();
        let mut data = [0; 2];
        bus.view().read(0x10, &mut data);
        assert_eq!(data, [7, 0xff]);
    }

    #[test]
    fn access_straddling_the_end_of_a_range_is_unclaimed() {
        let bus = Bus::new();
        let device = tag(7);
        bus.insert(0x10..0x14, device.clone()).unwrap();
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
        bus.insert(0x3f8..0x400, device.clone()).unwrap();
        assert_eq!(bus.view().write(0x3fd, &[1]), Outcome::Hold);
        assert_eq!(*device.1.lock().unwrap(), [5]);
    }

    #[test]
    fn view_taken_before_an_insert_sees_it() {
        let bus = Bus::new();
        let mut view = bus.view();
        bus.insert(0..1, tag(9)).unwrap();
        let mut data = [0];
        view.read(0, &mut data);
        assert_eq!(data, [9]);
    }

    #[test]
    fn insert_overlap_is_refused_and_names_both() {
        let bus = Bus::new();
        bus.insert(0x10..0x20, tag(1)).unwrap();
        let error = bus.insert(0x1f..0x21, tag(2)).unwrap_err();
        assert_eq!(error.to_string(), "bus range 0x1f..0x21 overlaps the device at 0x10..0x20");
    }

    #[test]
    fn insert_empty_is_refused() {
        assert_eq!(Bus::new().insert(5..5, tag(1)), Err(Error::Empty(5..5)));
    }

    #[test]
    fn access_that_wraps_around_is_unclaimed() {
        let bus = Bus::new();
        bus.insert(u64::MAX - 1..u64::MAX, tag(3)).unwrap();
        let mut data = [0; 2];
        bus.view().read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 2]);
    }

    /// Whoever inserts a device by value has no other use for it; an `Arc` of it is the same device.
    #[test]
    fn device_inserted_by_value_answers_as_its_arc_does() {
        let bus = Bus::new();
        bus.insert(0..1, Tag(1, Mutex::default())).unwrap();
        bus.insert(1..2, Arc::new(Tag(2, Mutex::default())) as Arc<dyn BusDevice>).unwrap();
        assert_eq!(bus.view().write(1, &[0]), Outcome::Hold);
        assert!(bus.view().is_holding(1));
        let read = |addr| {
            let mut data = [0];
            bus.view().read(addr, &mut data);
            data[0]
        };
        assert_eq!([0, 1].map(read), [1, 2]);
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
                if bus.insert(start..start + range_len, tag(i as u8)).is_ok() {
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
