//! A file as presented to imago: a qcow2 image looks plain, and imago doesn't write its first cluster.
//!
//! imago handles an image's tables well, but its header less so: it refuses images with features that only
//! affect writers, clears features when it opens an image for writing, and drops the extensions of version 2.
//! So we parse the header, and present imago one that contains only the tables' locations.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::Storage;
use imago::file::File as Plain;
use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;

use super::end::FileEnd;
use super::failure::ImageFailure;
use super::header::{Header, PLAIN_LEN, TABLES};
use super::order::WriteOrder;

/// Bytes that imago writes to update the tables' locations in a header.
const HEADER_WRITE_LEN: u64 = 72;

/// A file of an image.
#[derive(Debug)]
pub(super) struct View {
    file: Plain,
    end: FileEnd,
    header: Option<ShownHeader>,
    /// Of a writable image.
    order: Option<WriteOrder>,
}

/// The header presented in place of an image's first cluster.
#[derive(Debug)]
struct ShownHeader {
    bytes: [u8; PLAIN_LEN],
    cluster_len: u64,
}

impl View {
    /// A raw file, which had `len` bytes when the disk was opened.
    pub(super) fn raw(file: File, len: u64) -> io::Result<Self> {
        let end = FileEnd::new(Arc::new(file.try_clone()?), len)?;
        Ok(Self { file: Plain::try_from(file)?, end, header: None, order: None })
    }

    /// A qcow2 image, whose file had `len` bytes when the disk was opened, presented as a plain one; writable if it has a
    /// place for its failure.
    pub(super) fn qcow2(
        (file, len): (File, u64),
        header: &Header,
        failure: Option<ImageFailure>,
    ) -> io::Result<Self> {
        let shared = Arc::new(file.try_clone()?);
        let order = match failure {
            Some(failure) => Some(WriteOrder::new(Arc::clone(&shared), header, failure)?),
            None => None,
        };
        let header = ShownHeader { bytes: header.plain(), cluster_len: 1 << header.cluster_bits };
        Ok(Self {
            file: Plain::try_from(file)?,
            end: FileEnd::new(shared, len)?,
            header: Some(header),
            order,
        })
    }

    /// Whether `range` overlaps an image's first cluster.
    fn touches_header(&self, offset: u64) -> bool {
        self.header.as_ref().is_some_and(|header| offset < header.cluster_len)
    }

    /// Reads a range that starts in the first cluster.
    fn read_header(&self, shown: &ShownHeader, mut into: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut bytes = IoBuffer::new(into.len() as usize, self.file.mem_align())?;
        // SAFETY: offset and length come from a caller that must align both to `req_align`, and `bytes` is
        // aligned to `mem_align` just above.
        unsafe { self.file.pure_readv((&mut bytes).into(), offset) }?;
        let bytes = bytes.as_mut().into_slice();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let shown = shown.bytes.get(start..).unwrap_or_default();
        bytes.iter_mut().zip(shown).for_each(|(byte, shown)| *byte = *shown);
        into.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes imago's change of a header: the tables' locations.
    fn write_header(&self, from: &IoVector<'_>, offset: u64) -> io::Result<()> {
        if (offset, from.len()) != (0, HEADER_WRITE_LEN) {
            return Err(protected());
        }
        let mut bytes = [0; HEADER_WRITE_LEN as usize];
        from.copy_into_slice(&mut bytes);
        let Range { start, .. } = TABLES;
        let tables = Header::tables(&bytes).ok_or_else(protected)?;
        self.order()?.move_tables(tables, || {
            // SAFETY: this file is accessed through the page cache, which supports any offset, length and
            // memory alignment. Only this thread writes the first cluster.
            unsafe { self.file.pure_writev(bytes[TABLES].into(), start as u64) }
        })
    }

    fn order(&self) -> io::Result<&WriteOrder> {
        self.order.as_ref().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    /// Must precede a write of zeros or a discard.
    fn begin_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.touches_header(offset) {
            return Err(protected());
        }
        self.order()?.begin_zeros(offset, length)?;
        self.check_end(offset, length)
    }

    /// Fails if the range is no longer in the file.
    fn check_end(&self, offset: u64, length: u64) -> io::Result<()> {
        self.end.check(offset.saturating_add(length), self.size()?)
    }
}

fn protected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the image's tables point to its header")
}

impl Storage for View {
    fn mem_align(&self) -> usize {
        self.file.mem_align()
    }

    fn req_align(&self) -> usize {
        self.file.req_align()
    }

    fn zero_align(&self) -> usize {
        self.file.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.file.discard_align()
    }

    /// Its length when the disk was opened, or more after a write: imago gets the file anew before the first one, and must
    /// not take it for another that is longer or shorter.
    fn size(&self) -> io::Result<u64> {
        let len = self.end.opened_len();
        Ok(if self.order.is_some() { len.max(self.file.size()?) } else { len })
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, _relative: P) -> io::Result<PathBuf> {
        // imago must not open files named in an image.
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let len = bufv.len();
        match &self.header {
            Some(header) if offset < header.cluster_len => self.read_header(header, bufv, offset),
            // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
            _ => unsafe { self.file.pure_readv(bufv, offset) },
        }?;
        self.check_end(offset, len)
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        if self.touches_header(offset) {
            return self.write_header(&bufv, offset);
        }
        let order = self.order()?;
        let kind = order.begin(offset, bufv.len(), || {
            let mut bytes = vec![0; bufv.len() as usize];
            bufv.copy_into_slice(&mut bytes);
            bytes
        })?;
        let written = self
            .check_end(offset, bufv.len())
            // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
            .and_then(|()| unsafe { self.file.pure_writev(bufv, offset) });
        order.end(kind, written)
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.begin_zeros(offset, length)?;
        if self.end.is_device() {
            return self.end.zero_device(offset, length);
        }
        // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
        unsafe { self.file.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.begin_zeros(offset, length)?;
        // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
        unsafe { self.file.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.begin_zeros(offset, length)?;
        // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
        unsafe { self.file.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.order.as_ref().map_or(Ok(()), WriteOrder::sync)
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: the caller fulfils the requirements of this function, which are those of the file's.
        unsafe { self.file.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.file.get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.file.resize(new_size, mode)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.file, f)
    }
}
