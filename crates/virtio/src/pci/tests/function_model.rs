//! A model of the function, written from the PCI Local Bus specification 3.0 (§6.1, §6.2.5, §6.8.2) and virtio 1.2 §4.1: configuration
//! space, BAR and MSI-X.

use std::ops::Range;

use vmm_pci::Message;

use super::bench::Seen;
use super::registers_model::RegistersModel;
use super::steps::{Step, Way};

pub(super) const QUEUE_SIZES: [u16; 2] = [8, 4];
pub(super) const RAM_LEN: u64 = 0x10_0000;
/// Where the BAR may be, which is of 512 KiB.
pub(super) const WINDOW: Range<u64> = 0xc100_0000..0xc200_0000;
const BAR_LEN: u64 = 0x8_0000;
const VECTORS: usize = 3;

/// The mover refuses every fourth place.
pub(super) fn is_refused(address: u64) -> bool {
    address / BAR_LEN % 4 == 3
}

/// Configuration space after the power-up, but for BAR 0: byte by byte.
const POWER_UP: &[(usize, &[u8])] = &[
    // Vendor, device 0x1040 + 42; no COMMAND; STATUS with a capability list; revision 1, class 0xff.
    (0x00, &[0xf4, 0x1a, 0x6a, 0x10, 0, 0, 0x10, 0, 1, 0, 0, 0xff]),
    // A 64-bit memory BAR.
    (0x10, &[4]),
    (0x2c, &[0xf4, 0x1a, 0x6a, 0x10]),
    (0x34, &[0x40]),
    // MSI-X of three vectors, table at 0x8000 and pending bits at 0x4_8000 of BAR 0.
    (0x40, &[0x11, 0x4c, 2, 0, 0, 0x80, 0, 0, 0, 0x80, 4, 0]),
    (0x4c, &[9, 0x5c, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0]),
    (0x5c, &[9, 0x6c, 16, 3, 0, 0, 0, 0, 0, 0x20, 0, 0, 4, 0, 0, 0]),
    (0x6c, &[9, 0x7c, 16, 4, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0x10, 0, 0]),
    (0x7c, &[9, 0x90, 20, 2, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0]),
    (0x90, &[9, 0, 20, 5]),
];

/// The bytes that can be written, and their bits.
fn writable(at: usize) -> u8 {
    match at {
        0x04 => 0b110,
        // INTx disable.
        0x05 => 0b100,
        0x12 => 0xf8,
        0x13..0x18 | 0x3c | 0x94 | 0x98..0xa4 => 0xff,
        // MSI-X: function mask and enable.
        0x43 => 0xc0,
        _ => 0,
    }
}

#[derive(Clone, Copy, Default)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    pending: bool,
}

pub(super) struct FunctionModel {
    config: [u8; 256],
    entries: [Entry; VECTORS],
    registers: RegistersModel,
    seen: Seen,
    /// Starts of the device that failed.
    pub(super) faults: usize,
}

impl FunctionModel {
    pub(super) fn new() -> Self {
        let mut config = [0; 256];
        for (at, bytes) in POWER_UP {
            config[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        config[0x10..0x18].copy_from_slice(&(WINDOW.start | 4).to_le_bytes());
        let entries = [Entry { masked: true, ..Entry::default() }; VECTORS];
        Self { config, entries, registers: RegistersModel::new(), seen: Seen::default(), faults: 0 }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    pub(super) fn take(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::ReadConfig(way, at, width) => match dwords(*way, *at, *width) {
                Some(parts) => parts.into_iter().flat_map(|part| self.read_config(part)).collect(),
                None => vec![0xff; *width],
            },
            Step::WriteConfig(way, at, data) => {
                for part in dwords(*way, *at, data.len()).unwrap_or_default() {
                    let from = part.start - *at as usize;
                    self.write_config(part.start, &data[from..from + part.len()]);
                }
                Vec::new()
            }
            Step::ReadBar(_, width) if self.seen.decoded.is_none() => vec![0x77; *width],
            Step::ReadBar(at, width) => self.read_bar(*at, *width),
            Step::WriteBar(..) if self.seen.decoded.is_none() => Vec::new(),
            Step::WriteBar(at, data) => {
                self.write_bar(*at, data);
                Vec::new()
            }
            Step::Fire(queue) => {
                self.fire(*queue);
                Vec::new()
            }
        }
    }

    fn read_config(&mut self, part: Range<usize>) -> Vec<u8> {
        if part.start >= 0xa0
            && part.start < 0xa4
            && let Some((at, len)) = self.window()
        {
            let value = self.read_bar(at, len);
            self.config[0xa0..0xa0 + len].copy_from_slice(&value);
        }
        let mut bytes: Vec<u8> = part.clone().map(|at| self.config.get(at).copied().unwrap_or(0)).collect();
        if part.contains(&6) && !self.is_enabled() && self.registers.isr != 0 {
            bytes[6 - part.start] |= 8;
        }
        bytes
    }

    fn write_config(&mut self, start: usize, data: &[u8]) {
        for (at, value) in (start..).zip(data).filter(|(at, _)| *at < 256) {
            self.config[at] = self.config[at] & !writable(at) | value & writable(at);
        }
        let touches = |range: Range<usize>| (start..start + data.len()).any(|at| range.contains(&at));
        if touches(0x04..0x06) || touches(0x42..0x44) {
            self.deliver();
        }
        if touches(0x04..0x06) || touches(0x10..0x18) {
            self.decode();
        }
        if touches(0xa0..0xa4)
            && let Some((at, len)) = self.window()
        {
            let value = self.config[0xa0..0xa0 + len].to_vec();
            self.write_bar(at, &value);
        }
    }

    fn dword(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.config[at..at + 4].try_into().unwrap())
    }

    /// Offset and length of the window's access, if it is one.
    fn window(&self) -> Option<(u64, usize)> {
        let (bar, offset, len) = (self.config[0x94], u64::from(self.dword(0x98)), self.dword(0x9c));
        let is_access = bar == 0 && [1, 2, 4].contains(&len) && offset % u64::from(len) == 0;
        (is_access && offset + u64::from(len) <= BAR_LEN).then_some((offset, len as usize))
    }

    fn decode(&mut self) {
        let address = u64::from(self.dword(0x10) & !15) | u64::from(self.dword(0x14)) << 32;
        let wanted = match self.config[4] & 2 {
            0 => None,
            _ if !(WINDOW.start..=WINDOW.end - BAR_LEN).contains(&address) => return,
            _ => Some(address),
        };
        if wanted == self.seen.decoded {
        } else if wanted.is_some_and(is_refused) {
            self.seen.refused += 1;
        } else {
            self.seen.decoded = wanted;
            self.seen.moves += 1;
        }
    }

    fn is_enabled(&self) -> bool {
        self.config[0x43] & 0x80 != 0
    }

    fn can_send(&self) -> bool {
        self.is_enabled() && self.config[0x43] & 0x40 == 0 && self.config[4] & 4 != 0
    }

    fn deliver(&mut self) {
        for vector in 0..VECTORS {
            if self.can_send() && self.entries[vector].pending && !self.entries[vector].masked {
                self.entries[vector].pending = false;
                self.send(vector);
            }
        }
    }

    fn send(&mut self, vector: usize) {
        let Entry { address, data, .. } = self.entries[vector];
        self.seen.sent.push(Message { address, data });
    }

    fn fire(&mut self, queue: Option<usize>) {
        let cause = if queue.is_some() { 1 } else { 2 };
        if !self.is_enabled() || queue.is_none() {
            self.registers.isr |= cause;
        }
        let vector = usize::from(self.registers.vector(queue));
        if !self.is_enabled() || vector >= VECTORS {
        } else if self.can_send() && !self.entries[vector].masked {
            self.send(vector);
        } else {
            self.entries[vector].pending = true;
        }
    }

    fn read_bar(&mut self, at: u64, width: usize) -> Vec<u8> {
        let within = |start: u64, len: u64| at >= start && at + width as u64 <= start + len;
        if within(0x8000, 16 * VECTORS as u64) {
            let table: Vec<u8> = self.entries.into_iter().flat_map(Entry::to_bytes).collect();
            let start = (at - 0x8000) as usize;
            return if is_table_access(at, width) {
                table[start..start + width].to_vec()
            } else {
                vec![0; width]
            };
        }
        if within(0x4_8000, 8) {
            let bits =
                self.entries.iter().rev().fold(0_u64, |bits, entry| bits << 1 | u64::from(entry.pending));
            return (bits >> (8 * (at - 0x4_8000))).to_le_bytes()[..width].to_vec();
        }
        self.registers.read(at, width)
    }

    fn write_bar(&mut self, at: u64, data: &[u8]) {
        if at >= 0x8000 && at + data.len() as u64 <= 0x8000 + 16 * VECTORS as u64 {
            if is_table_access(at, data.len()) {
                for (index, dword) in ((at as usize - 0x8000) / 4..).zip(data.chunks(4)) {
                    self.entries[index / 4].put(index % 4, u32::from_le_bytes(dword.try_into().unwrap()));
                }
                self.deliver();
            }
            return;
        }
        if self.registers.write(at, data) {
            self.entries.iter_mut().for_each(|entry| entry.pending = false);
        }
        match self.registers.take_start() {
            None => {}
            Some(Ok(queues)) => self.seen.starts.push(queues),
            Some(Err(())) => {
                self.faults += 1;
                self.fire(None);
            }
        }
    }
}

impl Entry {
    fn to_bytes(self) -> Vec<u8> {
        let fields = [self.address as u32, (self.address >> 32) as u32, self.data, u32::from(self.masked)];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    fn put(&mut self, field: usize, value: u32) {
        match field {
            0 => self.address = self.address >> 32 << 32 | u64::from(value & !3),
            1 => self.address = self.address & 0xffff_ffff | u64::from(value) << 32,
            2 => self.data = value,
            _ => self.masked = value & 1 != 0,
        }
    }
}

fn is_table_access(at: u64, width: usize) -> bool {
    (width == 4 || width == 8) && at.is_multiple_of(width as u64)
}

/// The parts of an access within double-words, or none if it isn't one.
fn dwords(way: Way, at: u64, width: usize) -> Option<Vec<Range<usize>>> {
    let at = at as usize;
    match width {
        8 if way == Way::Ecam && at.is_multiple_of(4) => Some(vec![at..at + 4, at + 4..at + 8]),
        1 | 2 | 4 if at % 4 + width <= 4 => Some(vec![at..at + width; 1]),
        _ => None,
    }
}
