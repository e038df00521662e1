//! MSI-X against a model written from PCI Local Bus 3.0 §6.8.2: the table as an array of double-words, the pending bits as a set.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;
use vmm_pci::{CONTROL_ENABLE, CONTROL_FUNCTION_MASK, Message, Msix};

/// Two quad-words of pending bits and a part of a third.
const VECTORS: usize = 130;

#[derive(Clone, Debug)]
enum Step {
    ReadTable(u64, usize),
    WriteTable(u64, Vec<u8>),
    ReadPending(u64, usize),
    SetControl(u16),
    SetBusMaster(bool),
    Fire(usize),
}

struct Model {
    table: Vec<u32>,
    pending: BTreeSet<usize>,
    control: u16,
    bus_master: bool,
}

impl Model {
    fn new() -> Self {
        let table = [0, 0, 0, 1].repeat(VECTORS);
        Self { table, pending: BTreeSet::new(), control: 0, bus_master: false }
    }

    /// The double-words of an access that has a meaning.
    fn dwords(offset: u64, len: usize) -> std::ops::Range<usize> {
        match len {
            4 | 8 if offset.is_multiple_of(len as u64) => offset as usize / 4..offset as usize / 4 + len / 4,
            _ => 0..0,
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let dwords = Self::dwords(offset, len).map(|dword| self.table.get(dword).copied().unwrap_or(0));
        let bytes: Vec<u8> = dwords.flat_map(u32::to_le_bytes).collect();
        if bytes.is_empty() { vec![0; len] } else { bytes }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (dword, bytes) in Self::dwords(offset, data.len()).zip(data.chunks(4)) {
            let mask = [!3, !0, !0, 1][dword % 4];
            if let Some(at) = self.table.get_mut(dword) {
                *at = u32::from_le_bytes(bytes.try_into().unwrap()) & mask;
            }
        }
    }

    fn read_pending(&self, offset: u64, len: usize) -> Vec<u8> {
        let bits = (offset as usize * 8..).step_by(8).take(len);
        bits.map(|first| (0..8).filter(|bit| self.pending.contains(&(first + bit))).map(|bit| 1 << bit).sum())
            .collect()
    }

    fn is_open(&self, vector: usize) -> bool {
        let is_on = self.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) == CONTROL_ENABLE;
        is_on && self.bus_master && self.table[vector * 4 + 3] == 0
    }

    fn message(&self, vector: usize) -> Message {
        let [low, high, data] = [0, 1, 2].map(|field| self.table[vector * 4 + field]);
        Message { address: u64::from(high) << 32 | u64::from(low), data }
    }

    fn fire(&mut self, vector: usize) -> Option<Message> {
        if self.control & CONTROL_ENABLE == 0 || vector >= VECTORS {
            return None;
        }
        if !self.is_open(vector) {
            self.pending.insert(vector);
            return None;
        }
        Some(self.message(vector))
    }

    fn deliver(&mut self) -> Vec<Message> {
        let open: Vec<_> = self.pending.iter().copied().filter(|vector| self.is_open(*vector)).collect();
        open.iter().for_each(|vector| _ = self.pending.remove(vector));
        open.into_iter().map(|vector| self.message(vector)).collect()
    }
}

fn vector() -> impl Strategy<Value = usize> {
    // A few, so that steps meet at them.
    select(vec![0, 1, 7, 8, 63, 64, 65, 127, 128, 129, 130, 2047])
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (vector(), 0_u64..4).prop_map(|(vector, field)| vector as u64 * 16 + field * 4),
        1 => 0_u64..VECTORS as u64 * 16 + 16,
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0_u64..4, any::<u64>()], select(vec![1_usize, 2, 4, 4, 4, 8, 8]))
        .prop_map(|(value, len)| value.to_le_bytes()[..len].to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    let len = || select(vec![1_usize, 2, 4, 8]);
    prop_oneof![
        1 => (offset(), len()).prop_map(|(offset, len)| Step::ReadTable(offset, len)),
        4 => (offset(), data()).prop_map(|(offset, data)| Step::WriteTable(offset, data)),
        1 => (0_u64..26, len()).prop_map(|(offset, len)| Step::ReadPending(offset, len)),
        1 => select(vec![0, 0x4000, 0x8000, 0x8000, 0x8000, 0xc000, 0x87ff]).prop_map(Step::SetControl),
        1 => prop::bool::weighted(0.8).prop_map(Step::SetBusMaster),
        3 => vector().prop_map(Step::Fire),
    ]
}

proptest! {
    #[test]
    fn msix_is_as_the_model_has_it(steps in prop::collection::vec(step(), 1..120)) {
        let (mut msix, mut model) = (Msix::new(VECTORS), Model::new());
        prop_assert_eq!((msix.table_len(), msix.pending_len()), (2080, 24));
        for step in steps {
            match step {
                Step::ReadTable(offset, len) => {
                    let mut bytes = vec![0x77; len];
                    msix.read_table(offset, &mut bytes);
                    prop_assert_eq!(bytes, model.read(offset, len));
                }
                Step::WriteTable(offset, data) => {
                    msix.write_table(offset, &data);
                    model.write(offset, &data);
                }
                Step::ReadPending(offset, len) => {
                    let mut bytes = vec![0x77; len];
                    msix.read_pending(offset, &mut bytes);
                    prop_assert_eq!(bytes, model.read_pending(offset, len));
                }
                Step::SetControl(control) => {
                    msix.set_control(control);
                    model.control = control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
                }
                Step::SetBusMaster(bus_master) => (msix.bus_master, model.bus_master) = (bus_master, bus_master),
                Step::Fire(vector) => {
                    let message = (vector < VECTORS && model.is_open(vector)).then(|| model.message(vector));
                    prop_assert_eq!(msix.message(vector), message);
                    prop_assert_eq!(msix.fire(vector), model.fire(vector));
                }
            }
            prop_assert_eq!(msix.control(), model.control | (VECTORS as u16 - 1));
            let expected = model.deliver();
            prop_assert_eq!(msix.has_deliverable(), !expected.is_empty());
            prop_assert_eq!(msix.take_deliverable().collect::<Vec<_>>(), expected);
        }
    }
}
