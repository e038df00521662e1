//! The root bus: 32 slots, and the two ways to reach their configuration spaces.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use vmm_bus::{BusDevice, Outcome};

use crate::{BarMove, Decoded};

/// Slots of the bus. Slot 0 is the host bridge's.
pub const SLOTS: usize = 32;
/// The first port of configuration mechanism #1: CONFIG_ADDRESS, followed by CONFIG_DATA, 4 bytes each.
pub const CAM_PORT: u64 = 0xcf8;
/// Length of those ports.
pub const CAM_LEN: u64 = 8;
/// Length of the memory-mapped configuration spaces of one bus, 4 KiB for each function.
pub const ECAM_LEN: u64 = 1 << 20;
/// CONFIG_ADDRESS: accesses to CONFIG_DATA are configuration accesses.
const ADDRESS_ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: its implemented bits; the others are reserved and read as zeros (PCI Local Bus 3.0 §3.2.2.3.2).
pub(crate) const ADDRESS_BITS: u32 = ADDRESS_ENABLE | 0xff_fffc;

/// Function 0 of a device in a slot.
pub trait Function: Send + Sync {
    /// Reads configuration space. `offset` is at most 0xfff, `data` has 1, 2 or 4 bytes, all within one double-word.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes configuration space, under the same conditions. The bus carries out the effect.
    fn write_config(&self, offset: usize, data: &[u8]) -> Effect;

    /// Called after the bus has made the move that [`write_config`](Self::write_config) returned.
    fn moved(&self, made: BarMove);

    /// Whether the function has the BAR `bar` and may decode it at `address`: that is aligned, and inside the window that the bus
    /// has for BARs. `false` for a function without BARs.
    fn can_decode(&self, _bar: usize, _address: u64) -> bool {
        false
    }

    /// Whether a vCPU whose write returned [`Effect::Hold`] still has to wait.
    fn is_holding(&self) -> bool {
        false
    }
}

/// What a write to configuration space requests from the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Done,
    /// Hold the vCPU as long as the function [is holding](Function::is_holding) it.
    Hold,
    /// Change the address at which a BAR is decoded.
    Move(BarMove),
}

/// Moves the functions' registers in guest-physical memory.
pub trait BarMover: Send + Sync {
    /// Moves the registers of the function in `slot`. Returns whether it did; otherwise they haven't moved.
    fn move_bar(&self, slot: usize, wanted: BarMove) -> bool;
}

/// The devices of a bus. Configuration accesses are serialised; they are rare.
pub struct RootBus {
    pub(crate) functions: [Option<Arc<dyn Function>>; SLOTS],
    pub(crate) mover: Box<dyn BarMover>,
    /// Held during each access: where BARs are decoded, by slot.
    access: Mutex<[Decoded; SLOTS]>,
    /// CONFIG_ADDRESS.
    pub(crate) address: AtomicU32,
}

impl RootBus {
    /// A bus without any device.
    pub fn new(mover: Box<dyn BarMover>) -> Self {
        Self { functions: Default::default(), mover, access: Mutex::default(), address: AtomicU32::new(0) }
    }

    /// Puts a device into a slot, in place of one that may be there.
    ///
    /// # Panics
    /// There is no such slot.
    pub fn insert(&mut self, slot: usize, function: Arc<dyn Function>) {
        self.functions[slot] = Some(function);
    }

    /// Configuration mechanism #1, for the ports at [`CAM_PORT`]. It reads as an empty bus once `self` is dropped.
    pub fn cam(self: &Arc<Self>) -> Cam {
        Cam { bus: Arc::downgrade(self) }
    }

    /// The memory-mapped configuration spaces, [`ECAM_LEN`] bytes. They read as an empty bus once `self` is dropped.
    pub fn ecam(self: &Arc<Self>) -> Ecam {
        Ecam { bus: Arc::downgrade(self) }
    }

    /// The function with this device and function number.
    fn function(&self, devfn: usize) -> Option<&dyn Function> {
        match devfn % 8 {
            0 => self.functions.get(devfn / 8)?.as_deref(),
            _ => None,
        }
    }

    /// Reads `data` at `offset` of a function's configuration space. All ones if there is no such function, or if the access crosses a
    /// double-word.
    fn read(&self, devfn: usize, offset: usize, data: &mut [u8]) {
        let Some(function) = self.function(devfn).filter(|_| is_within_dword(offset, data.len())) else {
            return data.fill(0xff);
        };
        let _access = self.access();
        function.read_config(offset, data);
    }

    /// Writes `data` at `offset` of a function's configuration space, and carries out the effect. Ignored where
    /// [`read`](Self::read) returns all ones.
    fn write(&self, devfn: usize, offset: usize, data: &[u8]) -> Outcome {
        let Some(function) = self.function(devfn).filter(|_| is_within_dword(offset, data.len())) else {
            return Outcome::Done;
        };
        let mut decoded = self.access();
        match function.write_config(offset, data) {
            Effect::Done => {}
            Effect::Hold => return Outcome::Hold,
            Effect::Move(wanted) => _ = self.carry_out(&mut decoded, devfn / 8, wanted),
        }
        Outcome::Done
    }

    pub(crate) fn access(&self) -> MutexGuard<'_, [Decoded; SLOTS]> {
        self.access.lock().expect("no panic while it is held")
    }

    /// Moves a BAR of the function in `slot`, if the mover can. Returns whether it did.
    pub(crate) fn carry_out(&self, decoded: &mut [Decoded; SLOTS], slot: usize, wanted: BarMove) -> bool {
        let is_moved = self.mover.move_bar(slot, wanted);
        if is_moved && let Some(function) = &self.functions[slot] {
            function.moved(wanted);
            decoded[slot].set(wanted);
        }
        is_moved
    }

    fn is_holding(&self) -> bool {
        self.functions.iter().flatten().any(|function| function.is_holding())
    }
}

impl std::fmt::Debug for RootBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.functions.iter().enumerate().filter(|(_, function)| function.is_some());
        f.debug_list().entries(used.map(|(slot, _)| slot)).finish()
    }
}

/// Whether an access stays within one double-word, as configuration accesses do.
fn is_within_dword(offset: usize, len: usize) -> bool {
    matches!(len, 1 | 2 | 4) && offset % 4 + len <= 4
}

/// Configuration mechanism #1: the ports CONFIG_ADDRESS and CONFIG_DATA.
#[derive(Debug)]
pub struct Cam {
    bus: Weak<RootBus>,
}

impl Cam {
    /// The bus, the device and function number, and the offset of an access to CONFIG_DATA.
    fn selected(&self, port: u64) -> Option<(Arc<RootBus>, usize, usize)> {
        let root = self.bus.upgrade()?;
        let address = root.address.load(Ordering::SeqCst);
        let byte = usize::try_from(port.checked_sub(4)?).ok()?;
        let bus = address >> 16 & 0xff;
        if address & ADDRESS_ENABLE == 0 || bus != 0 {
            return None;
        }
        Some((root, (address >> 8 & 0xff) as usize, (address & 0xfc) as usize + byte))
    }
}

impl BusDevice for Cam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset == 0 && data.len() == 4 {
            let address = self.bus.upgrade().map(|bus| bus.address.load(Ordering::SeqCst));
            data.copy_from_slice(&address.unwrap_or(u32::MAX).to_le_bytes());
        } else if let Some((bus, devfn, at)) = self.selected(offset) {
            bus.read(devfn, at, data);
        }
    }

    /// Only a 4-byte write sets CONFIG_ADDRESS. Narrower ones address registers of other chipsets, such as the reset register at 0xcf9.
    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        match <[u8; 4]>::try_from(data) {
            Ok(address) if offset == 0 => {
                if let Some(bus) = self.bus.upgrade() {
                    bus.address.store(u32::from_le_bytes(address) & ADDRESS_BITS, Ordering::SeqCst);
                }
                Outcome::Done
            }
            _ => match self.selected(offset) {
                Some((bus, devfn, at)) => bus.write(devfn, at, data),
                None => Outcome::Done,
            },
        }
    }

    fn is_holding(&self) -> bool {
        self.bus.upgrade().is_some_and(|bus| bus.is_holding())
    }
}

/// The memory-mapped configuration spaces of the functions of one bus.
#[derive(Debug)]
pub struct Ecam {
    bus: Weak<RootBus>,
}

impl BusDevice for Ecam {
    /// 8 bytes are two double-words.
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((bus, (devfn, at))) = self.bus.upgrade().zip(ecam_address(offset)) else { return };
        match data.len() {
            8 if at.is_multiple_of(4) && at < 0xffc => {
                let (low, high) = data.split_at_mut(4);
                bus.read(devfn, at, low);
                bus.read(devfn, at + 4, high);
            }
            _ => bus.read(devfn, at, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let Some((bus, (devfn, at))) = self.bus.upgrade().zip(ecam_address(offset)) else {
            return Outcome::Done;
        };
        match data.len() {
            8 if at.is_multiple_of(4) && at < 0xffc => {
                let (low, high) = data.split_at(4);
                let outcomes = [bus.write(devfn, at, low), bus.write(devfn, at + 4, high)];
                let is_held = outcomes.contains(&Outcome::Hold);
                if is_held { Outcome::Hold } else { Outcome::Done }
            }
            _ => bus.write(devfn, at, data),
        }
    }

    fn is_holding(&self) -> bool {
        self.bus.upgrade().is_some_and(|bus| bus.is_holding())
    }
}

/// The device and function number, and the offset in the configuration space, of an address in an ECAM of one bus.
fn ecam_address(offset: u64) -> Option<(usize, usize)> {
    let offset = usize::try_from(offset).ok().filter(|offset| *offset < ECAM_LEN as usize)?;
    Some((offset >> 12, offset & 0xfff))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Reads as the offset, and keeps what was written.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<(usize, Vec<u8>)>>);

    impl Function for Recorder {
        fn read_config(&self, offset: usize, data: &mut [u8]) {
            data.iter_mut().enumerate().for_each(|(at, byte)| *byte = (offset + at) as u8);
        }
        fn write_config(&self, offset: usize, data: &[u8]) -> Effect {
            self.0.lock().unwrap().push((offset, data.to_vec()));
            match data {
                [0xbb, to] => Effect::Move(BarMove { bar: 0, from: None, to: Some(u64::from(*to) << 12) }),
                [0xdd, _] => Effect::Hold,
                _ => Effect::Done,
            }
        }

        fn moved(&self, made: BarMove) {
            self.0.lock().unwrap().push((made.to.unwrap() as usize, vec![]));
        }

        fn is_holding(&self) -> bool {
            true
        }
    }

    /// Refuses to move anything to 0x1000.
    struct Reluctant;

    impl BarMover for Reluctant {
        fn move_bar(&self, slot: usize, wanted: BarMove) -> bool {
            assert_eq!(slot, 3);
            wanted.to != Some(0x1000)
        }
    }

    fn bus() -> (Arc<RootBus>, Arc<Recorder>) {
        let (mut bus, function) = (RootBus::new(Box::new(Reluctant)), Arc::new(Recorder::default()));
        bus.insert(3, Arc::clone(&function) as _);
        (Arc::new(bus), function)
    }

    fn read<const N: usize>(device: &dyn BusDevice, offset: u64) -> [u8; N] {
        let mut data = [0xff; N];
        device.read(offset, &mut data);
        data
    }

    fn write(device: &dyn BusDevice, offset: u64, data: &[u8]) {
        assert_eq!(device.write(offset, data), Outcome::Done);
    }

    /// CONFIG_ADDRESS for slot 3.
    fn select(cam: &dyn BusDevice, register: u32) {
        write(cam, 0, &(ADDRESS_ENABLE | 3 << 11 | register).to_le_bytes());
    }

    #[test]
    fn cam_reaches_bytes_words_and_double_words() {
        let (bus, function) = bus();
        let cam = bus.cam();
        select(&cam, 0x40);
        assert_eq!(read(&cam, 4), [0x40, 0x41, 0x42, 0x43]);
        assert_eq!(read(&cam, 6), [0x42, 0x43]);
        assert_eq!(read(&cam, 7), [0x43]);
        write(&cam, 5, &[1, 2]);
        assert_eq!(*function.0.lock().unwrap(), [(0x41, vec![1, 2])]);
    }

    #[test]
    fn cam_absent_functions_disabled_and_crossing_read_as_ones_and_take_nothing() {
        let (bus, function) = bus();
        let cam = bus.cam();
        for address in [4 << 11, 3 << 11 | 1 << 8, 1 << 16 | 3 << 11] {
            write(&cam, 0, &(ADDRESS_ENABLE | address).to_le_bytes());
            assert_eq!(read(&cam, 4), [0xff; 4], "{address:#x}");
            write(&cam, 4, &[0; 4]);
        }
        write(&cam, 0, &(3u32 << 11).to_le_bytes());
        assert_eq!(read(&cam, 4), [0xff; 4], "not enabled");
        select(&cam, 0);
        assert_eq!(read(&cam, 6), [0xff; 4], "crossing");
        write(&cam, 7, &[0; 2]);
        assert!(function.0.lock().unwrap().is_empty());
    }

    #[test]
    fn cam_address_is_set_by_four_bytes_alone() {
        let (bus, _) = bus();
        let cam = bus.cam();
        select(&cam, 8);
        // Port 0xcf9, which resets other chipsets.
        write(&cam, 1, &[6]);
        write(&cam, 0, &[0; 2]);
        assert_eq!(u32::from_le_bytes(read(&cam, 0)), ADDRESS_ENABLE | 3 << 11 | 8);
        assert_eq!(read(&cam, 1), [0xff]);
    }

    #[test]
    fn cam_address_has_no_reserved_bits() {
        let (bus, _) = bus();
        let cam = bus.cam();
        write(&cam, 0, &[0xff; 4]);
        assert_eq!(u32::from_le_bytes(read(&cam, 0)), 0x80ff_fffc);
        write(&cam, 0, &0x7f00_1803_u32.to_le_bytes());
        assert_eq!(u32::from_le_bytes(read(&cam, 0)), 0x1800);
    }

    #[test]
    fn ecam_reaches_the_same_registers() {
        let (bus, function) = bus();
        let ecam = bus.ecam();
        assert_eq!(read(&ecam, 3 << 15 | 0x41), [0x41]);
        assert_eq!(read(&ecam, 3 << 15 | 0x40), [0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47]);
        write(&ecam, 3 << 15 | 0x10, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(*function.0.lock().unwrap(), [(0x10, vec![1, 2, 3, 4]), (0x14, vec![5, 6, 7, 8])]);
    }

    #[test]
    fn bar_moves_if_the_mover_can() {
        let (bus, function) = bus();
        let cam = bus.cam();
        select(&cam, 0x10);
        write(&cam, 4, &[0xbb, 1]);
        write(&cam, 4, &[0xbb, 2]);
        let seen = [(0x10, vec![0xbb, 1]), (0x10, vec![0xbb, 2]), (0x2000, vec![])];
        assert_eq!(*function.0.lock().unwrap(), seen);
    }

    #[test]
    fn hold_of_a_function_reaches_the_vcpu_on_both_ways() {
        let (bus, _function) = bus();
        let (cam, ecam) = (bus.cam(), bus.ecam());
        select(&cam, 0x10);
        assert_eq!(BusDevice::write(&cam, 4, &[0xdd, 0]), Outcome::Hold);
        assert_eq!(ecam.write(3 << 15 | 0x10, &[0xdd, 0]), Outcome::Hold);
        assert!(cam.is_holding() && ecam.is_holding());
    }

    #[test]
    fn bus_that_is_gone_reads_as_empty() {
        let (bus, _) = bus();
        let (cam, ecam) = (bus.cam(), bus.ecam());
        drop(bus);
        select(&cam, 0);
        assert_eq!((read(&cam, 4), read(&ecam, 3 << 15)), ([0xff; 4], [0xff; 4]));
        assert!(!cam.is_holding() && !ecam.is_holding());
        write(&ecam, 3 << 15, &[0; 4]);
    }

    #[test]
    fn ecam_absent_functions_and_crossing_read_as_ones_and_take_nothing() {
        let (bus, function) = bus();
        let ecam = bus.ecam();
        for offset in [0, 4 << 15, 3 << 15 | 1 << 12, 3 << 15 | 2, ECAM_LEN - 4] {
            assert_eq!(read(&ecam, offset), [0xff; 4], "{offset:#x}");
            write(&ecam, offset, &[0; 4]);
        }
        assert_eq!(read(&ecam, 3 << 15 | 6), [0xff; 8], "not aligned");
        assert!(function.0.lock().unwrap().is_empty());
    }
}
