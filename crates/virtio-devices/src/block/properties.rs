//! Features and configuration of a disk (virtio 1.2 §5.2.3, §5.2.4).

use std::ops::Range;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};
use vmm_virtio::ConfigSpace;

use super::config::Cache;
use super::request::{DISCARD_SECTORS_MAX, SECTOR_LEN, SEGMENTS_MAX, SIZE_MAX, ZEROES_SECTORS_MAX};
use super::shape::Shape;

/// Offset of `capacity`, 64 bits.
const CAPACITY: Range<usize> = 0..8;
/// Offset of `writeback`, the byte that the driver may write.
const WRITEBACK: usize = 32;

/// The properties of a disk that its driver sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskProperties {
    pub(super) sectors: u64,
    pub(super) shape: Shape,
    pub(super) read_only: bool,
    pub(super) cache: Cache,
    pub(super) queues: u16,
}

impl DiskProperties {
    /// The offered features, as bits.
    pub(super) fn features(&self) -> u64 {
        let mut features = vec![VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE];
        features.extend([VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_FLUSH]);
        if self.queues > 1 {
            features.push(VIRTIO_BLK_F_MQ);
        }
        if self.read_only {
            features.push(VIRTIO_BLK_F_RO);
        } else {
            features.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_F_CONFIG_WCE]);
        }
        features.iter().fold(0, |bits, feature| bits | 1 << feature)
    }

    /// `struct virtio_blk_config`, up to its last used field.
    pub(super) fn space(&self) -> ConfigSpace {
        let shape = &self.shape;
        let in_blocks = |bytes: u32| bytes / shape.block_len;
        let writes = |value: u32| if self.read_only { 0 } else { value };
        let mut bytes = Vec::with_capacity(60);
        bytes.extend(self.sectors.to_le_bytes());
        bytes.extend(SIZE_MAX.to_le_bytes());
        bytes.extend(SEGMENTS_MAX.to_le_bytes());
        // geometry (cylinders, heads, sectors): unused.
        bytes.extend([0; 4]);
        bytes.extend(shape.block_len.to_le_bytes());
        bytes.extend([shape.physical_exponent(), shape.first_physical]);
        bytes.extend(u16::try_from(in_blocks(shape.preferred_len)).unwrap_or(0).to_le_bytes());
        bytes.extend(in_blocks(shape.optimal_len).to_le_bytes());
        bytes.extend([u8::from(self.cache == Cache::Writeback), 0]);
        bytes.extend(self.queues.to_le_bytes());
        bytes.extend(writes(DISCARD_SECTORS_MAX).to_le_bytes());
        bytes.extend(writes(1).to_le_bytes());
        bytes.extend(writes(shape.physical_len / SECTOR_LEN as u32).to_le_bytes());
        bytes.extend(writes(ZEROES_SECTORS_MAX).to_le_bytes());
        bytes.extend(writes(1).to_le_bytes());
        // write_zeroes_may_unmap, and three unused bytes.
        bytes.extend(writes(1).to_le_bytes());
        let writable = if self.read_only { 0..0 } else { WRITEBACK..WRITEBACK + 1 };
        ConfigSpace::negotiated(bytes, writable, negotiated)
    }
}

/// A driver that may choose the mode but never flushes starts in write-through mode: "If the
/// VIRTIO_BLK_F_CONFIG_WCE feature is negotiated but VIRTIO_BLK_F_FLUSH is not, the device MUST initialize
/// writeback to 0" (virtio 1.2 §5.2.5.2).
fn negotiated(bytes: &mut [u8], features: u64) {
    let has = |feature: u32| features & (1 << feature) != 0;
    if has(VIRTIO_BLK_F_CONFIG_WCE) && !has(VIRTIO_BLK_F_FLUSH) {
        bytes[WRITEBACK] = 0;
    }
}

/// Whether the driver has selected write-back mode.
pub(super) fn is_writeback(space: &ConfigSpace) -> bool {
    let mut byte = [0];
    space.read(WRITEBACK as u64, &mut byte);
    byte != [0]
}

/// Updates the capacity.
pub(super) fn set_sectors(space: &ConfigSpace, sectors: u64) {
    space.update(|bytes| bytes[CAPACITY].copy_from_slice(&sectors.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> DiskProperties {
        let shape = Shape { optimal_len: 65536, ..Shape::of_blocks(4096) };
        DiskProperties { sectors: 0x1_0000_0003, shape, read_only: false, cache: Cache::Writeback, queues: 4 }
    }

    fn at<const N: usize>(properties: DiskProperties, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        properties.space().read(offset, &mut bytes);
        bytes
    }

    /// Offsets as in Linux, include/uapi/linux/virtio_blk.h.
    #[test]
    fn space_has_each_field_at_its_place() {
        assert_eq!(u64::from_le_bytes(at(properties(), 0)), 0x1_0000_0003);
        assert_eq!(u32::from_le_bytes(at(properties(), 8)), 0x10_0000);
        assert_eq!(u32::from_le_bytes(at(properties(), 12)), 254);
        assert_eq!(u32::from_le_bytes(at(properties(), 20)), 512);
        assert_eq!(at(properties(), 24), [3, 0]);
        assert_eq!(u16::from_le_bytes(at(properties(), 26)), 8);
        assert_eq!(u32::from_le_bytes(at(properties(), 28)), 128);
        assert_eq!(at(properties(), 32), [1, 0]);
        assert_eq!(u16::from_le_bytes(at(properties(), 34)), 4);
        assert_eq!(u32::from_le_bytes(at(properties(), 36)), 0x20_0000);
        assert_eq!(u32::from_le_bytes(at(properties(), 40)), 1);
        assert_eq!(u32::from_le_bytes(at(properties(), 44)), 8);
        assert_eq!(u32::from_le_bytes(at(properties(), 48)), 0x1_0000);
        assert_eq!(u32::from_le_bytes(at(properties(), 52)), 1);
        assert_eq!(at(properties(), 56), [1, 0, 0, 0]);
    }

    #[test]
    fn read_only_disk_offers_nothing_that_writes() {
        let read_only = DiskProperties { read_only: true, ..properties() };
        let has = |bit: u32| read_only.features() & (1 << bit) != 0;
        assert!(has(VIRTIO_BLK_F_RO) && has(VIRTIO_BLK_F_FLUSH));
        assert!(
            !has(VIRTIO_BLK_F_DISCARD) && !has(VIRTIO_BLK_F_WRITE_ZEROES) && !has(VIRTIO_BLK_F_CONFIG_WCE)
        );
        assert_eq!(at(read_only, 36), [0; 24]);
    }

    #[test]
    fn one_queue_needs_no_feature() {
        let one = DiskProperties { queues: 1, ..properties() };
        assert_eq!(one.features() & (1 << VIRTIO_BLK_F_MQ), 0);
        assert_ne!(properties().features() & (1 << VIRTIO_BLK_F_MQ), 0);
    }

    #[test]
    fn size_changed_is_read_back() {
        let space = properties().space();
        set_sectors(&space, 7);
        let mut bytes = [0; 8];
        space.read(0, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), 7);
    }
}
