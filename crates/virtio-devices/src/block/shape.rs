//! A disk's block sizes and preferred I/O sizes (virtio 1.2 §5.2.4, VIRTIO_BLK_F_BLK_SIZE and
//! VIRTIO_BLK_F_TOPOLOGY).

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Statx, StatxFlags, ioctl_blkpbszget, ioctl_blksszget, statx};

use super::file::DiskFile;
use super::request::SECTOR_LEN;

/// Maximum block size that Linux's driver accepts (drivers/block/virtio_blk.c, `virtblk_read_limits`: a
/// page).
const BLOCK_LEN_MAX: u64 = 4096;
/// Maximum physical block size to report: larger values are preferences rather than block sizes.
const PHYSICAL_LEN_MAX: u64 = 1 << 20;

/// Block sizes, powers of two, and preferred I/O sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Logical block size: the unit of the driver's requests.
    pub(super) block_len: u32,
    /// Physical block size: the host's minimum I/O unit.
    pub(super) physical_len: u32,
    /// Offset of the first physical block in logical blocks.
    pub(super) first_physical: u8,
    /// Preferred minimum I/O size in bytes.
    pub(super) preferred_len: u32,
    /// Optimal I/O size in bytes; 0 if unknown.
    pub(super) optimal_len: u32,
}

/// Alignment of memory and offsets for O_DIRECT in bytes (statx(2), STATX_DIOALIGN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectAlignment {
    pub(super) memory: u32,
    pub(super) offset: u32,
}

impl Shape {
    /// A shape with physical blocks of `physical_len`.
    pub(super) fn of_blocks(physical_len: u64) -> Self {
        let physical_len = block(physical_len, PHYSICAL_LEN_MAX);
        Self {
            block_len: SECTOR_LEN as u32,
            physical_len,
            first_physical: 0,
            preferred_len: physical_len,
            optimal_len: 0,
        }
    }

    /// The shape of `image`, which has `len` bytes, with O_DIRECT's alignment.
    pub(super) fn of(image: &DiskFile, len: u64, direct: Option<DirectAlignment>) -> io::Result<Self> {
        let found = status(&image.file)?;
        if image.is_device {
            return Ok(Self::of_device(&image.file, &found)?);
        }
        let mut shape = Self::of_blocks(found.stx_blksize.into());
        if let Some(direct) = direct {
            let block_len = block(direct.offset.into(), BLOCK_LEN_MAX);
            // A disk consists of whole blocks.
            if len.is_multiple_of(block_len.into()) {
                shape.block_len = block_len;
                shape.physical_len = shape.physical_len.max(block_len);
            }
        }
        Ok(shape)
    }

    fn of_device(file: &File, found: &Statx) -> rustix::io::Result<Self> {
        let block_len = block(ioctl_blksszget(file)?.into(), BLOCK_LEN_MAX);
        let physical_len = block(ioctl_blkpbszget(file)?.into(), PHYSICAL_LEN_MAX).max(block_len);
        // Which files exist depends on the kernel. A partition has those of its disk.
        let limit = |name: &str| -> Option<u64> {
            let device = format!("/sys/dev/block/{}:{}", found.stx_rdev_major, found.stx_rdev_minor);
            let of = |directory: &str| std::fs::read_to_string(format!("{device}/{directory}/{name}"));
            of("queue").or_else(|_| of("../queue")).ok()?.trim().parse().ok()
        };
        let alignment = std::fs::read_to_string(format!(
            "/sys/dev/block/{}:{}/alignment_offset",
            found.stx_rdev_major, found.stx_rdev_minor
        ));
        let alignment = alignment.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let small = |bytes: u64| u32::try_from(bytes).unwrap_or(0);
        Ok(Self {
            block_len,
            physical_len,
            first_physical: u8::try_from(alignment / u64::from(block_len)).unwrap_or(0),
            preferred_len: limit("minimum_io_size").map_or(physical_len, small).max(physical_len),
            optimal_len: limit("optimal_io_size").map_or(0, small),
        })
    }

    /// log2 of the number of logical blocks per physical block.
    pub(super) fn physical_exponent(&self) -> u8 {
        (self.physical_len / self.block_len).max(1).ilog2() as u8
    }
}

/// O_DIRECT's alignment for `file`. Kernels before 6.1 don't report it; a page suits every disk then.
pub(super) fn direct_alignment(file: &File) -> io::Result<DirectAlignment> {
    let found = status(file)?;
    let said = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN);
    let of = |bytes: u32| if said && bytes.is_power_of_two() { bytes } else { BLOCK_LEN_MAX as u32 };
    Ok(DirectAlignment { memory: of(found.stx_dio_mem_align), offset: of(found.stx_dio_offset_align) })
}

fn status(file: &File) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    Ok(statx(file, "", AtFlags::EMPTY_PATH, wanted)?)
}

/// `len` if it is a power of two, otherwise a sector's length; at most `max`.
fn block(len: u64, max: u64) -> u32 {
    let len = if len.is_power_of_two() { len } else { SECTOR_LEN };
    len.clamp(SECTOR_LEN, max) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_exponent_is_how_often_a_block_is_doubled() {
        let shape = Shape { block_len: 512, ..Shape::of_blocks(4096) };
        assert_eq!(shape.physical_exponent(), 3);
        assert_eq!(Shape::of_blocks(512).physical_exponent(), 0);
    }

    #[test]
    fn block_that_is_none_becomes_a_sector() {
        assert_eq!(Shape::of_blocks(0).physical_len, 512);
        assert_eq!(Shape::of_blocks(3000).physical_len, 512);
        // ZFS and network file systems report large preferred sizes.
        assert_eq!(Shape::of_blocks(4 << 20).physical_len, 1 << 20);
    }
}
