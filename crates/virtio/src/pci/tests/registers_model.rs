//! A model of the registers, written from virtio 1.2 §2.1, §3.1.1 and §4.1.4: common configuration, ISR status, device configuration.

use super::bench::Rings;
use super::function_model::{QUEUE_SIZES, RAM_LEN};

/// VERSION_1, EVENT_IDX and INDIRECT_DESC.
const OFFERED: u64 = 1 << 32 | 1 << 29 | 1 << 28;
const NO_VECTOR: u16 = 0xffff;
const VECTORS: u16 = 3;
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;

#[derive(Clone, Copy)]
struct QueueModel {
    size: u16,
    vector: u16,
    is_enabled: bool,
    /// Descriptors, driver's area, device's area.
    rings: [u64; 3],
}

pub(super) struct RegistersModel {
    pub(super) isr: u8,
    status: u8,
    features: u64,
    selects: [u32; 2],
    queue_select: u16,
    config_vector: u16,
    queues: [QueueModel; 2],
    device: [u8; 8],
    is_broken: bool,
    start: Option<Result<Vec<Option<Rings>>, ()>>,
}

impl RegistersModel {
    pub(super) fn new() -> Self {
        let mut model = Self {
            isr: 0,
            status: 0,
            features: 0,
            selects: [0; 2],
            queue_select: 0,
            config_vector: 0,
            queues: [QueueModel { size: 0, vector: 0, is_enabled: false, rings: [0; 3] }; 2],
            device: [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7],
            is_broken: false,
            start: None,
        };
        model.reset();
        model
    }

    fn reset(&mut self) {
        (self.isr, self.status, self.features, self.is_broken) = (0, 0, 0, false);
        self.config_vector = NO_VECTOR;
        for (queue, size) in self.queues.iter_mut().zip(QUEUE_SIZES) {
            *queue = QueueModel { size, vector: NO_VECTOR, is_enabled: false, rings: [0; 3] };
        }
        self.device[2..6].copy_from_slice(&[0xa2, 0xa3, 0xa4, 0xa5]);
    }

    pub(super) fn vector(&self, queue: Option<usize>) -> u16 {
        match queue {
            None => self.config_vector,
            Some(queue) => self.queues.get(queue).map_or(NO_VECTOR, |queue| queue.vector),
        }
    }

    /// The queues of a start of the device, or that it failed.
    pub(super) fn take_start(&mut self) -> Option<Result<Vec<Option<Rings>>, ()>> {
        self.start.take()
    }

    pub(super) fn read(&mut self, at: u64, width: usize) -> Vec<u8> {
        let value = match (at, width) {
            (0..0x40, _) => self.common(at, width).to_le_bytes().to_vec(),
            (0x2000, 1 | 2 | 4) => vec![std::mem::take(&mut self.isr), 0, 0, 0],
            (0x4000..0x4008, _) if at + width as u64 <= 0x5000 => {
                self.device[at as usize - 0x4000..].to_vec()
            }
            _ => Vec::new(),
        };
        value.into_iter().chain([0; 8]).take(width).collect()
    }

    /// Registers of this width, and zeros otherwise.
    fn common(&self, at: u64, width: usize) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let half = |value: u64, high: u32| (value >> (32 * high) & 0xffff_ffff) as u32;
        let features = |features: u64, select: u32| if select < 2 { half(features, select) } else { 0 };
        let ring = |index: usize, high| queue.map_or(0, |queue| half(queue.rings[index], high));
        let is_broken = self.is_broken && self.status & DRIVER_OK != 0;
        let (value, bytes) = match at {
            0 => (self.selects[0], 4),
            4 => (features(OFFERED, self.selects[0]), 4),
            8 => (self.selects[1], 4),
            12 => (features(self.features, self.selects[1]), 4),
            16 => (self.config_vector.into(), 2),
            18 => (QUEUE_SIZES.len() as u32, 2),
            20 => ((self.status | if is_broken { NEEDS_RESET } else { 0 }).into(), 1),
            22 => (self.queue_select.into(), 2),
            24 => (queue.map_or(0, |queue| queue.size.into()), 2),
            26 => (queue.map_or(NO_VECTOR, |queue| queue.vector).into(), 2),
            28 => (queue.map_or(0, |queue| queue.is_enabled.into()), 2),
            30 => (self.queue_select.into(), 2),
            32 | 40 | 48 => (ring((at - 32) as usize / 8, 0), 4),
            36 | 44 | 52 => (ring((at - 32) as usize / 8, 1), 4),
            _ => (0, width),
        };
        if bytes == width { value.into() } else { 0 }
    }

    /// Whether it was a reset.
    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> bool {
        if at >= 0x4002 && at + data.len() as u64 <= 0x4006 {
            let start = (at - 0x4000) as usize;
            self.device[start..start + data.len()].copy_from_slice(data);
        }
        match *data {
            [value] if at == 20 => return self.write_status(value),
            [low, high] if at < 0x40 => self.write_word(at, u16::from_le_bytes([low, high])),
            [a, b, c, d] if at < 0x40 => self.write_dword(at, u32::from_le_bytes([a, b, c, d])),
            _ => {}
        }
        false
    }

    fn write_word(&mut self, at: u64, value: u16) {
        let vector = if value < VECTORS { value } else { NO_VECTOR };
        let is_open = self.is_setting_up();
        let index = usize::from(self.queue_select);
        match at {
            16 => self.config_vector = vector,
            22 => self.queue_select = value,
            _ => {}
        }
        let (Some(queue), Some(max)) = (self.queues.get_mut(index), QUEUE_SIZES.get(index)) else { return };
        match at {
            26 => queue.vector = vector,
            24 if is_open && !queue.is_enabled && value.is_power_of_two() && value <= *max => {
                queue.size = value
            }
            28 if is_open && value == 1 => queue.is_enabled = true,
            _ => {}
        }
    }

    fn write_dword(&mut self, at: u64, value: u32) {
        let put = |into: &mut u64, is_high: bool| {
            let shift = if is_high { 32 } else { 0 };
            *into = *into & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        let is_open = self.is_setting_up();
        match (at, self.queues.get_mut(usize::from(self.queue_select))) {
            (0, _) => self.selects[0] = value,
            (8, _) => self.selects[1] = value,
            (12, _) if self.status & (DRIVER | FEATURES_OK) == DRIVER && self.selects[1] < 2 => {
                put(&mut self.features, self.selects[1] == 1);
            }
            (32 | 36 | 40 | 44 | 48 | 52, Some(queue)) if is_open && !queue.is_enabled => {
                put(&mut queue.rings[(at - 32) as usize / 8], at % 8 == 4);
            }
            _ => {}
        }
    }

    /// Between FEATURES_OK and DRIVER_OK.
    fn is_setting_up(&self) -> bool {
        self.status & (FEATURES_OK | DRIVER_OK) == FEATURES_OK
    }

    /// Whether it was a reset.
    fn write_status(&mut self, value: u8) -> bool {
        if value == 0 {
            self.reset();
            return true;
        }
        let had_driver_ok = self.status & DRIVER_OK != 0;
        self.status |= value & (ACKNOWLEDGE | FAILED);
        let is_acceptable = self.features & !OFFERED == 0 && self.features & 1 << 32 != 0;
        for (bit, after, allowed) in [
            (DRIVER, ACKNOWLEDGE, true),
            (FEATURES_OK, DRIVER, is_acceptable),
            (DRIVER_OK, FEATURES_OK, true),
        ] {
            if self.status & after != 0 && allowed {
                self.status |= value & bit;
            }
        }
        if !had_driver_ok && self.status & DRIVER_OK != 0 {
            let enabled = self.queues.iter().filter(|queue| queue.is_enabled);
            let is_valid = enabled.clone().all(QueueModel::is_in_memory);
            let rings = |queue: &QueueModel| queue.is_enabled.then_some((queue.size, queue.rings));
            self.is_broken = !is_valid;
            self.start = Some(if is_valid { Ok(self.queues.iter().map(rings).collect()) } else { Err(()) });
        }
        false
    }
}

impl QueueModel {
    /// virtio 1.2 §2.7: alignment and size of each area.
    fn is_in_memory(&self) -> bool {
        let size = u64::from(self.size);
        let areas = [(16, 16 * size), (2, 6 + 2 * size), (4, 6 + 8 * size)];
        self.rings.iter().zip(areas).all(|(gpa, (align, len))| {
            gpa.is_multiple_of(align) && gpa.checked_add(len).is_some_and(|end| end <= RAM_LEN)
        })
    }
}
