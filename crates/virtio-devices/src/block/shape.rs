//! A disk's blocks: what its file is best read and written in (virtio 1.2 §5.2.4, VIRTIO_BLK_F_BLK_SIZE and
//! VIRTIO_BLK_F_TOPOLOGY).

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Statx, StatxFlags, ioctl_blkpbszget, ioctl_blksszget, statx};

use super::file::DiskFile;
use super::request::SECTOR_LEN;

/// The largest block that Linux's driver takes (drivers/block/virtio_blk.c, `virtblk_read_limits`: a page).
const BLOCK_LEN_MAX: u64 = 4096;
/// The largest physical block that we tell of: what is larger is a preference, not a block.
const PHYSICAL_LEN_MAX: u64 = 1 << 20;

/// Powers of two, in bytes, and what the disk prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The unit of the driver's reads and writes.
    pub(super) block_len: u32,
    /// What the host reads and writes at least.
    pub(super) physical_len: u32,
    /// Where the first physical block starts, in blocks.
    pub(super) first_physical: u8,
    /// What is worth to be read or written at least, in bytes.
    pub(super) preferred_len: u32,
    /// And best, in bytes; 0 if that is unknown.
    pub(super) optimal_len: u32,
}

/// How O_DIRECT wants memory and positions (statx(2), STATX_DIOALIGN), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectAlignment {
    pub(super) memory: u32,
    pub(super) offset: u32,
}

impl Shape {
    /// One whose physical blocks are of `physical_len`.
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

    /// That of `image`, which has `len` bytes, with what O_DIRECT wants of it.
    pub(super) fn of(image: &DiskFile, len: u64, direct: Option<DirectAlignment>) -> io::Result<Self> {
        let found = status(&image.file)?;
        if image.is_device {
            return Ok(Self::of_device(&image.file, &found)?);
        }
        let mut shape = Self::of_blocks(found.stx_blksize.into());
        if let Some(direct) = direct {
            let block_len = block(direct.offset.into(), BLOCK_LEN_MAX);
            // A disk is whole blocks.
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
        // Which of these exist depends on the kernel; a partition has those of its disk.
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

    /// How many times a block is doubled for a physical one.
    pub(super) fn physical_exponent(&self) -> u8 {
        (self.physical_len / self.block_len).max(1).ilog2() as u8
    }
}

/// What O_DIRECT wants of `file`. A kernel before 6.1 doesn't say: then a page, which every disk takes.
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

/// A power of two from a sector to `max`.
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
        // ZFS and network file systems prefer large ones.
        assert_eq!(Shape::of_blocks(4 << 20).physical_len, 1 << 20);
    }
}
