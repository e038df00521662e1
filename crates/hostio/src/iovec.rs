//! Guest memory as the kernel takes it for I/O: a list of addresses and lengths.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::{GuestBytes, GuestRange};

/// The most pieces of memory that one call of the kernel takes (Linux, include/uapi/linux/uio.h, UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// One piece of guest memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Piece(libc::iovec);

// SAFETY: an address and a length are plain numbers. What they name is dereferenced by the kernel only, in calls whose
// own arguments say why the memory is there.
unsafe impl Send for Piece {}

/// A list of pieces of guest memory, for the kernel to read or write, in memory that is used again for the next.
///
/// It keeps the guest's memory mapped as long as it holds a piece of it.
pub struct IoSlices {
    /// Every piece lies in it.
    ram: Option<GuestRam>,
    pieces: Vec<Piece>,
    /// Pieces in front that the kernel is done with.
    done: usize,
    len: u64,
}

impl IoSlices {
    /// An empty list with room for `pieces`; one that needs more grows once.
    pub fn with_capacity(pieces: usize) -> Self {
        Self { ram: None, pieces: Vec::with_capacity(pieces), done: 0, len: 0 }
    }

    /// Replaces the list by what `bytes` consist of.
    ///
    /// # Errors
    /// They consist of more than 1024 pieces, or aren't all RAM. The list is empty then.
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

    /// Adds the pieces of a range, which may lie in two regions that touch.
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

    /// Forgets the pieces, and with them the guest's memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        (self.ram, self.done, self.len) = (None, 0, 0);
    }

    /// Bytes that are left.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `count` bytes from the front.
    pub(crate) fn advance(&mut self, count: u64) {
        let mut count = count.min(self.len);
        self.len -= count;
        while count > 0 {
            let piece = &mut self.pieces[self.done].0;
            let here = count.min(piece.iov_len as u64) as usize;
            // Within the piece, or just behind it, so that the address stays one of the piece's memory.
            piece.iov_base = piece.iov_base.wrapping_byte_add(here);
            piece.iov_len -= here;
            count -= here as u64;
            if piece.iov_len == 0 {
                self.done += 1;
            }
        }
    }

    /// What is left, for a call of the kernel: the address of the first piece, and their number.
    pub(crate) fn raw(&self) -> (*const libc::iovec, usize) {
        let left = &self.pieces[self.done..];
        (left.as_ptr().cast(), left.len())
    }

    /// Fills what is left from `file` at `offset`, or a part of it (preadv(2)). How many bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn read_some(&self, file: &File, offset: u64) -> io::Result<u64> {
        let offset = position(offset)?;
        let (pieces, count) = self.raw();
        // SAFETY: the descriptor is open, `file` is borrowed. `pieces` points to `count` structures of iovec's layout
        // (`Piece` is transparent) that nobody changes while `self` is borrowed. Each names memory inside the mapping of
        // guest RAM: `gather` took them from slices of it, `advance` stays inside a piece, and `ram` keeps it mapped. The
        // kernel may write there, for Rust has no reference to any of it.
        let read = unsafe { libc::preadv(file.as_raw_fd(), pieces, count as libc::c_int, offset) };
        result(read)
    }

    /// Writes what is left to `file` at `offset`, or a part of it (pwritev2(2)); `durable` for one that is on stable
    /// storage when this returns (RWF_DSYNC). How many bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn write_some(&self, file: &File, offset: u64, durable: bool) -> io::Result<u64> {
        let offset = position(offset)?;
        let (pieces, count) = self.raw();
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        // SAFETY: as in `read_some`; the kernel only reads the memory here.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), pieces, count as libc::c_int, offset, flags) };
        result(written)
    }

    /// Fills all that is left from `file` at `offset`.
    ///
    /// # Errors
    /// What the kernel says, or the file ends too soon.
    pub fn read_at(&mut self, file: &File, offset: u64) -> io::Result<()> {
        self.whole(offset, |slices, offset| slices.read_some(file, offset))
    }

    /// Writes all that is left to `file` at `offset`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write_at(&mut self, file: &File, offset: u64, durable: bool) -> io::Result<()> {
        self.whole(offset, |slices, offset| slices.write_some(file, offset, durable))
    }

    /// Writes what is left as one packet (writev(2)).
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&self, file: &File) -> io::Result<u64> {
        let (pieces, count) = self.raw();
        // SAFETY: as in `read_some`; the kernel only reads the memory here.
        let sent = unsafe { libc::writev(file.as_raw_fd(), pieces, count as libc::c_int) };
        result(sent)
    }

    /// Sends what is left, or a part of it, and takes that from the front (sendmsg(2)); it neither blocks nor raises SIGPIPE.
    /// How many bytes.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing now; the other end is gone.
    pub fn send_to(&mut self, socket: &UnixStream) -> io::Result<u64> {
        let message = self.message();
        // SAFETY: the descriptor is open, `socket` is borrowed. `message` is initialised, and names no address and no
        // control data; its pieces are as in `read_some`, and stay while `self` is borrowed. The kernel only reads.
        let sent = unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        };
        let count = result(sent)?;
        self.advance(count);
        Ok(count)
    }

    /// Fills what is left, or a part of it, with what `socket` has, and takes that from the front (recvmsg(2)); it doesn't
    /// block. How many bytes; 0 is the end of the stream, if there was room.
    ///
    /// # Errors
    /// `WouldBlock` if the socket has nothing now; what the kernel says.
    pub fn receive_from(&mut self, socket: &UnixStream) -> io::Result<u64> {
        let mut message = self.message();
        // SAFETY: the descriptor is open, `socket` is borrowed. `message` is initialised and borrowed for us alone; it has no
        // room for an address or for control data, so that no descriptor of the peer's comes in. Its pieces are as in
        // `read_some`, and stay while `self` is borrowed; the kernel may write there, as there.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let count = result(received)?;
        self.advance(count);
        Ok(count)
    }

    /// What is left, as the kernel's calls for sockets take it.
    fn message(&self) -> libc::msghdr {
        // SAFETY: a msghdr is numbers and pointers, for which zeros are values: no address, no data, no control data. (It has
        // private fields in some C libraries, so it isn't written as a literal.)
        let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        let (pieces, count) = self.raw();
        message.msg_iov = pieces.cast_mut();
        message.msg_iovlen = count as _;
        message
    }

    fn whole(
        &mut self,
        mut offset: u64,
        mut some: impl FnMut(&Self, u64) -> io::Result<u64>,
    ) -> io::Result<()> {
        while !self.is_empty() {
            match some(self, offset) {
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

/// Whether the same call may do better.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
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
