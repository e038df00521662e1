//! Guest memory as iovecs, for I/O system calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::{GuestBytes, GuestRange};

/// Maximum number of pieces per system call (Linux, include/uapi/linux/uio.h, UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// A contiguous piece of guest memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Piece(libc::iovec);

// SAFETY: an address and a length are plain numbers. Only the kernel dereferences them, in calls that justify
// on their own why the memory is mapped.
unsafe impl Send for Piece {}

/// A reusable list of pieces of guest memory for the kernel to read or write.
///
/// It keeps guest RAM mapped while it is not empty.
pub struct IoSlices {
    /// The RAM that contains the pieces.
    ram: Option<GuestRam>,
    pieces: Vec<Piece>,
    /// Number of leading pieces that the kernel has finished.
    done: usize,
    len: u64,
}

impl IoSlices {
    /// Creates an empty list with room for `pieces`. It grows when more are needed.
    pub fn with_capacity(pieces: usize) -> Self {
        Self { ram: None, pieces: Vec::with_capacity(pieces), done: 0, len: 0 }
    }

    /// Replaces the list with the pieces of `bytes`.
    ///
    /// # Errors
    /// There are more than 1024 pieces, or they aren't all RAM. The list is then empty.
    pub fn fill(&mut self, bytes: &impl GuestBytes) -> io::Result<()> {
        self.clear();
        let ram = bytes.ram();
        for range in bytes.ranges() {
            if self.gather(ram, range).is_none() {
                self.clear();
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        self.ram = Some(ram.clone());
        Ok(())
    }

    /// Appends the pieces of a range, which may span adjacent regions.
    fn gather(&mut self, ram: &GuestRam, range: GuestRange) -> Option<()> {
        let count = usize::try_from(range.len).ok()?;
        for slice in ram.memory().get_slices(GuestAddress(range.gpa), count) {
            let slice = slice.ok().filter(|_| self.pieces.len() < PIECES_MAX)?;
            let address = slice.ptr_guard_mut().as_ptr().cast();
            self.pieces.push(Piece(libc::iovec { iov_base: address, iov_len: slice.len() }));
            self.len += slice.len() as u64;
        }
        Some(())
    }

    /// Empties the list and releases the guest memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        (self.ram, self.done, self.len) = (None, 0, 0);
    }

    /// Number of bytes left.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes `count` bytes from the front.
    pub(crate) fn advance(&mut self, count: u64) {
        let mut count = count.min(self.len);
        self.len -= count;
        while count > 0 {
            let piece = &mut self.pieces[self.done].0;
            let here = count.min(piece.iov_len as u64) as usize;
            // Stays inside the piece or just past its end, so the pointer keeps its provenance.
            piece.iov_base = piece.iov_base.wrapping_byte_add(here);
            piece.iov_len -= here;
            count -= here as u64;
            if piece.iov_len == 0 {
                self.done += 1;
            }
        }
    }

    /// The remaining pieces for a system call: address of the first, and their number.
    pub(crate) fn raw(&self) -> (*const libc::iovec, usize) {
        let left = &self.pieces[self.done..];
        (left.as_ptr().cast(), left.len())
    }

    /// Reads up to the remaining length from `file` at `offset` (preadv(2)) and returns the number of bytes
    /// read.
    ///
    /// # Errors
    /// The system call fails.
    fn read_some(&self, file: &File, offset: u64) -> io::Result<u64> {
        let offset = position(offset)?;
        let (pieces, count) = self.raw();
        // SAFETY: the descriptor is open, `file` is borrowed. `pieces` points to `count` structures with the
        // layout of iovec (`Piece` is transparent), unchanged while `self` is borrowed. Each is inside the
        // mapping of guest RAM: `gather` took them from slices of it, `advance` stays inside a piece, and
        // `ram` keeps it mapped. The kernel may write there, because no Rust reference to that memory exists.
        let read = unsafe { libc::preadv(file.as_raw_fd(), pieces, count as libc::c_int, offset) };
        result(read)
    }

    /// Writes up to the remaining length to `file` at `offset` (pwritev2(2)) and returns the number of bytes
    /// written. If `durable`, they are on stable storage afterwards (RWF_DSYNC).
    ///
    /// # Errors
    /// The system call fails.
    fn write_some(&self, file: &File, offset: u64, durable: bool) -> io::Result<u64> {
        let offset = position(offset)?;
        let (pieces, count) = self.raw();
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        // SAFETY: as in `read_some`; here the kernel only reads the memory.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), pieces, count as libc::c_int, offset, flags) };
        result(written)
    }

    /// Fills all remaining pieces from `file` at `offset`.
    ///
    /// # Errors
    /// A system call fails, or the file ends early.
    pub fn read_at(&mut self, file: &File, offset: u64) -> io::Result<()> {
        self.transfer_all(offset, is_transient, |slices, offset| slices.read_some(file, offset))
    }

    /// Writes all remaining pieces to `file` at `offset`. If `durable`, they are on stable storage
    /// afterwards.
    ///
    /// # Errors
    /// A system call fails.
    pub fn write_at(&mut self, file: &File, offset: u64, durable: bool) -> io::Result<()> {
        let is_transient = if durable { is_interruption } else { is_transient };
        self.transfer_all(offset, is_transient, |slices, offset| slices.write_some(file, offset, durable))
    }

    /// Writes the remaining pieces as one packet (writev(2)).
    ///
    /// # Errors
    /// The system call fails.
    pub(crate) fn send(&self, file: &File) -> io::Result<u64> {
        let (pieces, count) = self.raw();
        // SAFETY: as in `read_some`; here the kernel only reads the memory.
        let sent = unsafe { libc::writev(file.as_raw_fd(), pieces, count as libc::c_int) };
        result(sent)
    }

    /// Sends up to the remaining length, removes what was sent from the front (sendmsg(2)), and returns the
    /// number of bytes sent. It neither blocks nor raises SIGPIPE.
    ///
    /// # Errors
    /// `WouldBlock` if the socket accepts nothing now; another error if the peer is gone.
    pub fn send_to(&mut self, socket: &UnixStream) -> io::Result<u64> {
        let message = self.message();
        // SAFETY: the descriptor is open, `socket` is borrowed. `message` is initialised, and has no address
        // and no control data. Its pieces are as in `read_some`, unchanged while `self` is borrowed. The
        // kernel only reads them.
        let sent = unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        };
        let count = result(sent)?;
        self.advance(count);
        Ok(count)
    }

    /// Receives up to the remaining length from `socket`, removes what was filled from the front
    /// (recvmsg(2)), and returns the number of bytes. It doesn't block. 0 is the end of the stream, unless
    /// the list was empty.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is available now; another error if the system call fails.
    pub fn receive_from(&mut self, socket: &UnixStream) -> io::Result<u64> {
        let mut message = self.message();
        // SAFETY: the descriptor is open, `socket` is borrowed. `message` is initialised and exclusively
        // borrowed. It has no room for an address or for control data, so the peer can't pass descriptors.
        // Its pieces are as in `read_some`, unchanged while `self` is borrowed; the kernel may write there
        // for the same reason.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let count = result(received)?;
        self.advance(count);
        Ok(count)
    }

    /// The remaining pieces as a message for socket calls.
    fn message(&self) -> libc::msghdr {
        // SAFETY: a msghdr consists of numbers and pointers, for which zero is valid: no address, no data, no
        // control data. (Some C libraries give it private fields, so it isn't written as a literal.)
        let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        let (pieces, count) = self.raw();
        message.msg_iov = pieces.cast_mut();
        message.msg_iovlen = count as _;
        message
    }

    fn transfer_all(
        &mut self,
        mut offset: u64,
        is_transient: fn(&io::Error) -> bool,
        mut transfer: impl FnMut(&Self, u64) -> io::Result<u64>,
    ) -> io::Result<()> {
        while !self.is_empty() {
            match transfer(self, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.advance(count);
                    offset += count;
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether a read, or a write that isn't durable, may succeed if repeated.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    is_interruption(error) || error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a sync or a durable write may be repeated.
///
/// EINTR means that a signal has ended the wait. But EAGAIN isn't a request to try again: no file system of Linux makes it
/// for a sync. It is what a server (FUSE, a network file system) has answered, and it may have done so to the write of a
/// page earlier on: then the kernel regards the page as clean, reports the error once, and the next sync succeeds although
/// the data is lost (errseq_t, Documentation/core-api/errseq.rst).
pub(crate) fn is_interruption(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    offset.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn result(returned: isize) -> io::Result<u64> {
    u64::try_from(returned).map_err(|_| io::Error::last_os_error())
}

impl std::fmt::Debug for IoSlices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoSlices").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
