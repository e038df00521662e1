//! A disk that is the bytes of one file: the kernel does I/O directly on guest memory, with many requests in
//! flight.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use vmm_hostio::{Durable, Engine, IoMethod, IoRequest};
use vmm_virtio::{Buffers, DeviceError, Head};

use super::concurrent::Concurrent;
use super::errors::Operation;
use super::file::DiskFile;
use super::request::Request;
use super::shape::{DirectAlignment, Shape, direct_alignment};
use super::stamp::StampedFile;
use crate::failure::{FlushState, StorageFailure};
use crate::left_out::left_out;
use crate::loop_device::LayersBelow;
use crate::place::{Access, Place};

/// Maximum number of requests in flight; further ones wait in their queues. More doesn't make NVMe drives
/// notably faster. Its lists take half a MiB.
const DEPTH: u16 = 128;

/// Maximum work in flight, in the unit of [`work`](Request::work), because a stop waits for it. More makes no
/// disk faster: at 10 GB/s it is 6 ms of I/O. A larger request is done alone.
const WORK_MAX: u64 = 64 << 20;

/// The disk.
#[derive(Debug)]
pub(super) struct Raw {
    file: Arc<File>,
    path: PathBuf,
    /// Of what goes to [`DIRECT`], if that is open.
    direct: Option<DirectAlignment>,
    pub(super) engine: Engine<Submitted>,
    /// Total work in flight.
    work: u64,
    flushes: FlushState,
    /// Those that complete on stable storage.
    durable: Concurrent<Completed>,
    /// Holds the lock and the claim, and is dropped after the engine, which may have requests in flight. It isn't `file`: of a
    /// monitor that is killed, the kernel closes the files of a ring some 50 ms after the ring, and the next user of
    /// the disk would be refused until then.
    _locked: Arc<File>,
    _below: LayersBelow,
}

/// A request, and its number among those that complete on stable storage if it is one.
pub(super) type Submitted = (Pending, Option<u64>);
type Completed = (Pending, io::Result<()>);

/// Index of the file in the engine's.
const FILE: usize = 0;
/// Index of the same file, opened with O_DIRECT.
const DIRECT: usize = 1;

/// How the file is accessed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) access: Access,
    /// O_DIRECT.
    pub(super) direct: bool,
    pub(super) method: IoMethod,
    /// Base of the threads' names.
    pub(super) name: &'a str,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) queue: usize,
    pub(super) head: Head,
    /// Its cost, see [`work`](Request::work).
    pub(super) work: u64,
    /// Address of its status.
    pub(super) status_gpa: u64,
    /// Bytes to the driver, without the status.
    pub(super) len_in: u64,
    /// Bytes from the driver.
    pub(super) len_out: u64,
    /// For messages.
    pub(super) operation: Operation,
    /// It completes on stable storage.
    pub(super) is_durable: bool,
}

impl Raw {
    /// Opens the disk in `image`.
    pub(super) fn open(
        image: DiskFile,
        place: Place<'_>,
        options: Options<'_>,
    ) -> Result<(Self, Shape), DeviceError> {
        let len = image.disk_len(place)?;
        let path = place.path.display();
        let direct =
            options.direct.then(|| open_direct(&image, options.access)).transpose().map_err(|error| {
                let problem = format!("{path} doesn't support O_DIRECT ({error}), remove \"direct\"");
                DeviceError::config("direct", problem)
            })?;
        let (direct_file, direct) = direct.unzip();
        let shape = Shape::of(&image, len, direct)
            .map_err(|error| DeviceError::host(place.field, format!("{path} can't be examined: {error}")))?;
        let again = image.open_again(options.access, OFlag::empty());
        let file = Arc::new(again.map_err(|error| place.host("can't be opened again", &error))?);
        // In the order of their indexes.
        let files: Vec<_> = [Some(Arc::clone(&file)), direct_file].into_iter().flatten().collect();
        let mut engine = Engine::new(options.method, DEPTH, options.name, &files).map_err(refused)?;
        let locked = Arc::new(image.file);
        if image.is_device {
            engine = engine.with_claimed(Arc::clone(&locked));
        }
        Ok((
            Self {
                file,
                path: image.path,
                direct,
                engine,
                work: 0,
                flushes: FlushState::default(),
                durable: Concurrent::new(DEPTH),
                _locked: locked,
                _below: image.below,
            },
            shape,
        ))
    }

    /// Its file.
    pub(super) fn stamped(&self) -> StampedFile<'_> {
        StampedFile { file: &self.file, path: &self.path }
    }

    /// The current length of the file.
    pub(super) fn len(&self) -> io::Result<u64> {
        (&*self.file).seek(SeekFrom::End(0))
    }

    /// Whether it is a regular file, whose length can be set, rather than a block device.
    pub(super) fn is_regular_file(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.is_file())
    }

    /// Extends the file to `len` bytes; the new ones are zeros and take no space until written.
    pub(super) fn grow(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Flushes earlier writes to stable storage, synchronously.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.flushes.check()?;
        self.flushes.note_flush(self.file.sync_data())
    }

    /// What an earlier failed flush means, if there was one.
    pub(super) fn failure(&self) -> Option<StorageFailure> {
        self.flushes.check().is_err().then(|| StorageFailure {
            failing: "flushes and write-through writes",
            remedy: "check the disk's file systems (fsck)".to_owned(),
        })
    }

    /// Whether a request with this much work can be submitted. If not, it can after a completion.
    pub(super) fn has_room(&self, work: u64) -> bool {
        // The engine's work was admitted by this check, so the sum can't overflow.
        !self.engine.is_full() && (self.engine.in_flight() == 0 || self.work + work <= WORK_MAX)
    }

    /// Submits a request, for which there must be [room](Self::has_room). False if that fails.
    pub(super) fn submit(&mut self, request: &Request<'_>, durable: Durable, pending: Pending) -> bool {
        if pending.is_durable && self.flushes.check().is_err() {
            return false;
        }
        let (request, offset) = match request {
            Request::Read { offset, into } => (IoRequest::Read(*into), *offset),
            Request::Write { offset, from } => (IoRequest::Write(*from, durable), *offset),
            Request::Flush => (IoRequest::Sync, 0),
            Request::Discard { range } => (IoRequest::Punch(range.end - range.start), range.start),
            Request::WriteZeroes { range, unmap } => {
                (IoRequest::Zero { len: range.end - range.start, unmap: *unmap, durable }, range.start)
            }
            Request::Identify { .. } => return false,
        };
        let file = match &self.direct {
            Some(alignment) if takes_direct(&request, offset, *alignment) => DIRECT,
            _ => FILE,
        };
        let number = pending.is_durable.then(|| self.durable.begin());
        let work = pending.work;
        let taken = self.engine.submit(request, file, offset, (pending, number)).is_ok();
        self.work += if taken { work } else { 0 };
        if let (false, Some(number)) = (taken, number) {
            self.durable.cancel(number);
        }
        taken
    }

    /// Takes a completed request. `None` means also that none is left if none is in flight.
    pub(super) fn completed(&mut self) -> Option<Completed> {
        loop {
            if let Some((pending, result)) = self.durable.take() {
                return Some((pending, result.and_then(|()| self.flushes.check())));
            }
            let ((pending, number), result) = self.engine.completed()?;
            self.work -= pending.work;
            let Some(number) = number else { return Some((pending, result)) };
            let result = match pending.operation {
                Operation::FLUSH => self.flushes.note_flush(result),
                _ => self.flushes.note_write(result),
            };
            self.durable.complete(number, (pending, result));
        }
    }
}

/// Whether a request is aligned for O_DIRECT. Others use the page cache, which the kernel keeps coherent:
/// drivers may use buffers of any alignment (virtio 1.2 §5.2.6).
fn takes_direct(request: &IoRequest<Buffers<'_>>, offset: u64, alignment: DirectAlignment) -> bool {
    let data = match request {
        IoRequest::Read(data) | IoRequest::Write(data, _) => data,
        _ => return false,
    };
    let offset_aligned = (offset | data.len()).is_multiple_of(alignment.offset.into());
    offset_aligned && is_aligned(data, alignment.memory as usize)
}

fn is_aligned(data: &Buffers<'_>, alignment: usize) -> bool {
    let mut aligned = true;
    let looked = data.slices(|slice| {
        let start = slice.ptr_guard().as_ptr().addr();
        aligned &= start.is_multiple_of(alignment) && slice.len().is_multiple_of(alignment);
        Ok(())
    });
    aligned && looked.is_ok()
}

fn open_direct(image: &DiskFile, access: Access) -> io::Result<(Arc<File>, DirectAlignment)> {
    let file = image.open_again(access, OFlag::O_DIRECT)?;
    let alignment = direct_alignment(&file)?;
    Ok((Arc::new(file), alignment))
}

/// The error if the requested io_uring isn't permitted, or if the host has no descriptors for any engine.
fn refused(error: io::Error) -> DeviceError {
    if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) {
        let remedy = "raise the limit of open files (ulimit -n)";
        return DeviceError::host("io", format!("the disk's requests can't be watched: {error}: {remedy}"));
    }
    if cfg!(not(feature = "io-uring")) {
        return left_out("io", "io-uring", "say \"threads\" or \"auto\"");
    }
    let remedy = "say \"threads\" or \"auto\", or allow it (sysctl kernel.io_uring_disabled)";
    DeviceError::host("io", format!("io_uring is refused: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use vmm_virtio::DeviceBlame;

    use super::*;

    #[cfg(feature = "io-uring")]
    #[test]
    fn uring_refused_says_what_to_do() {
        let error = refused(io::Error::from(Errno::EPERM));
        assert_eq!(error.blame, DeviceBlame::Host);
        assert_eq!(
            error.to_string(),
            ".io: io_uring is refused: Operation not permitted (os error 1); \
             say \"threads\" or \"auto\", or allow it (sysctl kernel.io_uring_disabled)"
        );
    }

    /// Independent of the engine, as each needs descriptors.
    #[test]
    fn host_without_descriptors_says_to_raise_their_limit() {
        let error = refused(io::Error::from(Errno::EMFILE));
        assert_eq!(error.blame, DeviceBlame::Host);
        assert_eq!(
            error.to_string(),
            ".io: the disk's requests can't be watched: Too many open files (os error 24): \
             raise the limit of open files (ulimit -n)"
        );
    }
}
