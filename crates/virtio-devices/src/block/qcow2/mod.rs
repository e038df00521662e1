//! qcow2 images: the header is parsed by [`header`], everything else is done by the imago crate.
//!
//! ```text
//!  open:              layers.rs reads the headers of the image and of its backing files, tables.rs checks the tables of one to
//!                     be written; imago gets them read-only
//!  the first change:  autoclear features are cleared, imago gets the same descriptors writable
//!  each change:       the image is marked dirty unless it is: imago caches tables and writes counts in any order; order.rs syncs
//!                     the file before a table that refers to what isn't on stable storage
//!  a rest, the end:   after a flush the tables are consistent, and the mark is removed
//!  a failure:         of a table's write or a sync: changes and flushes fail, and the mark stays (failure.rs)
//! ```
//!
//! imago would read directly into guest memory through Rust slices, which is undefined behaviour if the guest
//! changes the bytes meanwhile. So data is copied through a small buffer.

mod counts;
mod end;
mod entries;
mod failure;
pub mod header;
mod layers;
mod order;
mod refusal;
mod snapshots;
mod storage;
mod tables;
mod zstd;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use imago::Mapping;
use vmm_virtio::{Buffers, DeviceError, Fault};

use self::entries::Problem;
use self::layers::{Format, Layers};
pub use self::refusal::{Encryption, Refusal, Table};
use self::tables::Tables;
use super::file::DiskFile;
use super::image::{Image, Source};
use super::request::SECTOR_LEN;
use super::stamp::StampedFile;
use crate::failure::StorageFailure;
use crate::place::{Access, Place};
use crate::shell;

/// Size of the buffer between guest and image: the default cluster size of `qemu-img create`.
const PIECE_LEN: usize = 64 << 10;
static ZEROS: [u8; PIECE_LEN] = [0; PIECE_LEN];

/// Opens the image in `file` and its backing files, which must be those listed in `backing`. Also returns the disk's size in bytes.
pub(super) fn open(
    file: DiskFile,
    place: Place<'_>,
    access: Access,
    backing: &[Place<'_>],
) -> Result<(Box<dyn Image>, u64), DeviceError> {
    let image = Qcow2Image::open(file, place, access, backing)?;
    let len = image.format.size();
    Ok((Box::new(image), len))
}

/// The disk.
struct Qcow2Image {
    layers: Layers,
    format: Format,
    piece: Box<[u8]>,
    writing: Writing,
    /// Of a writable image.
    tables: Option<Tables>,
    /// The image is marked dirty.
    is_marked: bool,
    /// There were changes since the last flush.
    is_unflushed: bool,
    /// Clusters are free to which the tables in the file may still refer.
    has_freed: bool,
    /// There were changes since the last [`rest`](Image::rest).
    is_busy: bool,
    path: PathBuf,
}

/// Whether the image is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// The image isn't writable.
    Never,
    /// The guest hasn't written yet. Opening an image must not change it.
    Later,
    Started,
}

impl Qcow2Image {
    fn open(
        file: DiskFile,
        place: Place<'_>,
        access: Access,
        backing: &[Place<'_>],
    ) -> Result<Self, DeviceError> {
        let layers = Layers::open(file, place, access, backing)?;
        let (writing, tables) = match access {
            Access::ReadWrite => (Writing::Later, Some(layers.check_tables(place)?)),
            Access::Read => (Writing::Never, None),
        };
        let broken = |error: io::Error| place.wrong(&format!("can't be opened as qcow2: {error}"));
        let format = layers.build(Access::Read).map_err(broken)?;
        let len = format.size();
        if len == 0 || !len.is_multiple_of(SECTOR_LEN) {
            let problem =
                format!("holds a disk of {len} bytes, not of whole sectors of 512: qemu-img resize it");
            return Err(place.wrong(&problem));
        }
        let piece = vec![0; layers.cluster_len().max(PIECE_LEN).min(layers.l2_span())].into();
        Ok(Self {
            layers,
            format,
            piece,
            writing,
            tables,
            is_marked: false,
            is_unflushed: false,
            has_freed: false,
            is_busy: false,
            path: place.path.to_owned(),
        })
    }

    /// Must precede each change of these bytes of the disk.
    fn begin_change(&mut self, range: Range<u64>) -> io::Result<()> {
        if self.writing == Writing::Never {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.layers.failure().check()?;
        self.check_data(range)?;
        if !self.is_marked {
            self.layers.mark(true)?;
            self.is_marked = true;
        }
        if self.writing == Writing::Later {
            self.layers.clear_features()?;
            self.format = self.layers.build(Access::ReadWrite)?;
            self.writing = Writing::Started;
        }
        (self.is_unflushed, self.is_busy) = (true, true);
        Ok(())
    }

    /// Length of one step of the remaining bytes from `at`: at most to the end of a cluster, because a
    /// compressed cluster is decompressed as a whole for any part of it.
    fn step_len(&self, at: u64, left: u64) -> usize {
        let step = self.piece.len() as u64;
        left.min(step - at % step) as usize
    }

    /// Fails if data that would be written in place isn't exclusively the disk's.
    fn check_data(&mut self, range: Range<u64>) -> io::Result<()> {
        let (Some(tables), Some(file)) = (&mut self.tables, self.layers.file()) else { return Ok(()) };
        match tables.check_data(file, range) {
            Ok(()) => Ok(()),
            Err(Problem::Host(error)) => Err(error),
            Err(Problem::Image(refusal)) => {
                let problem = format!("{} {}", self.path.display(), refusal.problem(&self.path));
                Err(io::Error::new(io::ErrorKind::InvalidData, problem))
            }
        }
    }

    /// Must precede each step of a change, within an L2 table, that may need a new table: imago would place it
    /// in a free cluster right away, even if the table that no longer refers to that cluster is only in
    /// memory.
    fn write_freed(&mut self) -> io::Result<()> {
        if self.has_freed {
            self.format.flush()?;
            self.has_freed = false;
        }
        Ok(())
    }

    /// Calls `change` for the part of `range` in each L2 table: it may free clusters.
    fn free(
        &mut self,
        range: Range<u64>,
        mut change: impl FnMut(&mut Self, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let span = self.layers.l2_span() as u64;
        let mut at = range.start;
        while at < range.end {
            let end = (at - at % span).saturating_add(span).min(range.end);
            self.write_freed()?;
            self.check_place(at, end - at)?;
            self.has_freed = true;
            change(self, at..end)?;
            at = end;
        }
        Ok(())
    }

    /// Fails if a write at `at` would overwrite a table of the image because an L2 entry points to the
    /// table's cluster. Notices whether it will free clusters.
    fn check_place(&mut self, at: u64, len: u64) -> io::Result<()> {
        let Some(tables) = &self.tables else { return Ok(()) };
        let (mut at, end) = (at, at.saturating_add(len));
        while at < end {
            let (mapping, len) = self.format.get_mapping(at, end - at)?;
            match mapping {
                Mapping::Raw { offset, writable: true, .. } if tables.is_at(offset, len) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the guest's data overlaps a table of the image",
                    ));
                }
                Mapping::Raw { writable: false, .. } | Mapping::Special { .. } => self.has_freed = true,
                _ => {}
            }
            if len == 0 {
                break;
            }
            at += len;
        }
        Ok(())
    }

    /// Makes `range`, of one L2 table, read as zeros.
    fn zero(&mut self, range: Range<u64>, unmap: bool) -> io::Result<()> {
        let len = range.end - range.start;
        if self.format.size() < self.layers.cluster_len() as u64 {
            // imago subtracts a cluster from the end of the disk.
            return self.write_zeros(range);
        }
        if unmap {
            match self.format.discard_to_zero(range.start, len) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => return other,
            }
        }
        match self.format.write_zeroes(range.start, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.write_zeros(range),
            other => other,
        }
    }

    /// Writes zeros to clusters for which version 2 has no zero flag. What reads as zeros already is left
    /// alone.
    fn write_zeros(&mut self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (mapping, len) = self.format.get_mapping(at, range.end - at)?;
            let len = len.min(PIECE_LEN as u64);
            if !matches!(mapping, Mapping::Zero { .. }) {
                self.format.write(&ZEROS[..len as usize], at)?;
            }
            at += len;
        }
        Ok(())
    }
}

impl Source for Qcow2Image {
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()> {
        let (mut left, mut at) = (*into, offset);
        while !left.is_empty() {
            let len = self.step_len(at, left.len());
            let piece = &mut self.piece[..len];
            self.format.read(&mut *piece, at)?;
            let (here, rest) = left.split_at(piece.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
            here.write(piece).map_err(memory)?;
            (left, at) = (rest, at + piece.len() as u64);
        }
        Ok(())
    }

    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.format.read(into, offset)
    }

    fn files(&self) -> Vec<StampedFile<'_>> {
        self.layers.stamped()
    }
}

impl Image for Qcow2Image {
    fn write(&mut self, offset: u64, from: &Buffers<'_>) -> io::Result<()> {
        self.begin_change(offset..offset.saturating_add(from.len()))?;
        let (mut left, mut at) = (*from, offset);
        while !left.is_empty() {
            let len = self.step_len(at, left.len());
            let piece = &mut self.piece[..len];
            let (here, rest) = left.split_at(piece.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
            here.read(piece).map_err(memory)?;
            self.write_freed()?;
            self.check_place(at, len as u64)?;
            self.format.write(&self.piece[..len], at)?;
            (left, at) = (rest, at + len as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.layers.failure().check()?;
        if self.writing != Writing::Started {
            return Ok(());
        }
        // Flush imago's caches first.
        let flushed = self.format.flush().and_then(|()| self.format.sync());
        self.layers.failure().note(flushed)?;
        (self.is_unflushed, self.has_freed) = (false, false);
        Ok(())
    }

    fn rest(&mut self) -> io::Result<()> {
        let was_busy = std::mem::take(&mut self.is_busy);
        if was_busy { Ok(()) } else { self.close() }
    }

    fn close(&mut self) -> io::Result<()> {
        if self.is_marked && !self.is_unflushed && !self.layers.failure().has_happened() {
            self.layers.mark(false)?;
            self.is_marked = false;
        }
        Ok(())
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<()> {
        self.begin_change(range.clone())?;
        self.free(range, |image, part| {
            match image.format.discard_to_any(part.start, part.end - part.start) {
                // A discard is only a hint, and this image doesn't support it.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
                other => other,
            }
        })
    }

    fn write_zeroes(&mut self, range: Range<u64>, unmap: bool) -> io::Result<()> {
        self.begin_change(range.clone())?;
        self.free(range, |image, part| image.zero(part, unmap))
    }

    fn failure(&self) -> Option<StorageFailure> {
        self.layers.failure().has_happened().then(|| StorageFailure {
            failing: "flushes and writes",
            remedy: format!(
                "repair the image, qemu-img check -r all {}, and check its file systems (fsck)",
                shell::path(&self.path)
            ),
        })
    }

    fn copy_obstacle(&self) -> Option<String> {
        let name = shell::word(self.layers.relative_backing()?);
        Some(format!(
            "can't be copied: its backing file {name} is relative to its directory; change it to an absolute path with qemu-img rebase -u, \
             or do without --disks and copy the disk"
        ))
    }

    fn caution(&self) -> Option<String> {
        if self.writing != Writing::Later {
            return None;
        }
        let text = if self.layers.has_bitmaps() {
            "the image has dirty bitmaps, which are lost with the guest's first write: use \"read_only\" or an \"overlay\" to \
             keep them"
        } else if !self.layers.can_be_marked() {
            "the image is of version 2, which can't be marked as being written: if the monitor is killed, repair it before it is \
             used again, qemu-img check -r all, or make it version 3 now, qemu-img amend -f qcow2 -o compat=v3"
        } else {
            return None;
        };
        Some(text.to_owned())
    }
}

fn memory(fault: Fault) -> io::Error {
    io::Error::other(fault)
}
