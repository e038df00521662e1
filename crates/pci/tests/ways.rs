//! The two ways to configuration space against a model: which bytes of which function an access reaches (PCI Local Bus 3.0 §3.2.2.3.2,
//! PCI Express 3.0 §7.2.2).

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::select;
use vmm_bus::{BusDevice, Outcome};
use vmm_pci::{BarMove, BarMover, ECAM_LEN, Effect, Function, HostBridge, RootBus};

const SLOT: u64 = 31;

/// Offset and bytes of each access within a double-word.
type Accesses = Vec<(usize, Vec<u8>)>;

/// Reads as a function of the offset, and keeps what is written.
#[derive(Default)]
struct Recorder(Mutex<Accesses>);

fn byte(offset: usize) -> u8 {
    (offset ^ offset >> 8 ^ 0x5a) as u8
}

impl Function for Recorder {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        assert!(offset + data.len() <= 0x1000, "{offset:#x} is in no function");
        data.iter_mut().zip(offset..).for_each(|(into, at)| *into = byte(at));
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Effect {
        assert!(offset + data.len() <= 0x1000, "{offset:#x} is in no function");
        self.0.lock().unwrap().push((offset, data.to_vec()));
        Effect::Done
    }

    fn moved(&self, _made: BarMove) {
        unreachable!("it has no BAR");
    }
}

struct Fixed;

impl BarMover for Fixed {
    fn move_bar(&self, _slot: usize, _wanted: BarMove) -> bool {
        unreachable!("there is no BAR");
    }
}

/// A bus with the recorder in the last slot alone.
fn bus() -> (Arc<RootBus>, Arc<Recorder>) {
    let (mut bus, recorder) = (RootBus::new(Box::new(Fixed)), Arc::new(Recorder::default()));
    bus.insert(SLOT as usize, Arc::clone(&recorder) as _);
    (Arc::new(bus), recorder)
}

/// The double-word parts of an access at `at` of a function's configuration space.
fn parts(at: u64, len: usize) -> Vec<std::ops::Range<usize>> {
    let at = at as usize;
    match len {
        8 if at.is_multiple_of(4) && at + 8 <= 0x1000 => vec![at..at + 4, at + 4..at + 8],
        1 | 2 | 4 if at % 4 + len <= 4 => std::iter::once(at..at + len).collect(),
        _ => Vec::new(),
    }
}

fn read(device: &dyn BusDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xaa; len];
    device.read(offset, &mut data);
    data
}

fn expected(parts: &[std::ops::Range<usize>], len: usize) -> Vec<u8> {
    let bytes: Vec<u8> = parts.iter().cloned().flatten().map(byte).collect();
    if bytes.is_empty() { vec![0xff; len] } else { bytes }
}

proptest! {
    #[test]
    fn ecam_reaches_the_bytes_of_its_address(
        slot in select(vec![SLOT, SLOT, SLOT, 0, 30]),
        function in select(vec![0_u64, 0, 0, 1, 7]),
        at in prop_oneof![0_u64..0x1000, 0xff0_u64..0x1000, (0_u64..0x400).prop_map(|dword| dword * 4)],
        len in select(vec![1_usize, 2, 4, 8]),
    ) {
        let (bus, recorder) = bus();
        let ecam = bus.ecam();
        let offset = slot << 15 | function << 12 | at;
        let parts = if (slot, function) == (SLOT, 0) { parts(at, len) } else { Vec::new() };
        prop_assert_eq!(read(&ecam, offset, len), expected(&parts, len));
        let data = &[1, 2, 3, 4, 5, 6, 7, 8][..len];
        prop_assert_eq!(ecam.write(offset, data), Outcome::Done);
        let written = parts.into_iter().scan(0, |from, part| {
            let start = *from;
            *from += part.len();
            Some((part.start, data[start..*from].to_vec()))
        });
        prop_assert_eq!(&*recorder.0.lock().unwrap(), &written.collect::<Vec<_>>());
    }

    #[test]
    fn cam_reaches_the_bytes_of_its_address(
        is_enabled in prop::bool::weighted(0.9),
        number in select(vec![0_u64, 0, 0, 1, 0x80]),
        slot in select(vec![SLOT, SLOT, SLOT, 0]),
        function in select(vec![0_u64, 0, 0, 1]),
        register in 0_u64..0x100,
        port in 0_u64..8,
        len in select(vec![1_usize, 2, 4, 8]),
    ) {
        let (bus, recorder) = bus();
        let cam = bus.cam();
        let address = u64::from(is_enabled) << 31 | number << 16 | slot << 11 | function << 8 | register;
        prop_assert_eq!(cam.write(0, &(address as u32).to_le_bytes()), Outcome::Done);
        let is_there = is_enabled && (number, slot, function) == (0, SLOT, 0);
        let at = register & 0xfc | port & 3;
        let parts = if is_there && port >= 4 && len < 8 { parts(at, len) } else { Vec::new() };
        let read_back = (address & !3) as u32;
        let bytes =
            if (port, len) == (0, 4) { read_back.to_le_bytes().to_vec() } else { expected(&parts, len) };
        prop_assert_eq!(read(&cam, port, len), bytes);
        if (port, len) != (0, 4) {
            let data = &[1, 2, 3, 4, 5, 6, 7, 8][..len];
            prop_assert_eq!(cam.write(port, data), Outcome::Done);
            let written: Accesses = parts.into_iter().map(|part| (part.start, data.to_vec())).collect();
            prop_assert_eq!(&*recorder.0.lock().unwrap(), &written);
        }
    }
}

#[test]
fn ecam_ends_with_the_last_function() {
    let (bus, _) = bus();
    assert_eq!(read(&bus.ecam(), ECAM_LEN + (SLOT << 15), 4), [0xff; 4], "that is another bus");
    assert_eq!(read(&bus.ecam(), u64::MAX - 3, 4), [0xff; 4]);
}

#[test]
fn host_bridge_is_one_and_stays_as_it_is() {
    let mut bus = RootBus::new(Box::new(Fixed));
    bus.insert(0, Arc::new(HostBridge::default()));
    let bus = Arc::new(bus);
    let ecam = bus.ecam();
    let before = read(&ecam, 0, 8);
    assert_eq!(before, [0x86, 0x80, 0x57, 0x0d, 0, 0, 0, 0]);
    assert_eq!(read(&ecam, 8, 4), [0, 0, 0, 6], "class: host bridge");
    assert_eq!(ecam.write(0, &[0xff; 8]), Outcome::Done);
    assert_eq!(ecam.write(0x10, &[0xff; 8]), Outcome::Done);
    assert_eq!((read(&ecam, 0, 8), read(&ecam, 0x10, 8)), (before, vec![0; 8]));
}

#[test]
fn bus_lists_the_slots_in_use() {
    let (bus, _) = bus();
    assert_eq!(format!("{bus:?}"), "[31]");
}
