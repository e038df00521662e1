//! A stream socket that carries frames to a network stack such as passt, which needs no privileges.
//!
//! ```text
//!  | length, 4 bytes, big-endian | Ethernet frame | length | frame ...      (QEMU, docs/system/invocation: -netdev stream)
//! ```
//!
//! A stream has no message boundaries: a frame may be sent in part, and further ones are dropped until the
//! rest has been sent; likewise an incoming frame may be incomplete. If the peer violates the format, later
//! frames can't be found either, so the link ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use vmm_virtio::{Allow, Buffers, Needs};

use super::link::Link;
use super::sizes::{FRAME_LEN, HEADER_LEN};

const LENGTH_LEN: usize = 4;
/// Maximum frame length without a virtio header.
const BODY_LEN: usize = FRAME_LEN - HEADER_LEN;

/// The link.
pub(super) struct StreamLink {
    socket: UnixStream,
    /// The descriptor that the device watches: an epoll of the socket for the current events of interest.
    epoll: OwnedFd,
    waits_for: epoll::EventFlags,
    input: Input,
    output: Output,
    notice: Option<String>,
}

/// The frame being received, and the length of the next one.
///
/// A read stops after a frame and the length of the next one. The rest stays in the socket, where epoll sees
/// it.
struct Input {
    bytes: Vec<u8>,
    have: usize,
    has_ended: bool,
}

/// The frame being sent.
struct Output {
    bytes: Vec<u8>,
    /// Number of bytes sent.
    done: usize,
    /// The peer accepts no more data.
    is_broken: bool,
}

impl StreamLink {
    /// # Errors
    /// The host is out of file descriptors.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waits_for = epoll::EventFlags::IN;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(0), waits_for)?;
        let input = Input { bytes: vec![0; LENGTH_LEN + BODY_LEN + LENGTH_LEN], have: 0, has_ended: false };
        let output = Output { bytes: Vec::with_capacity(LENGTH_LEN + BODY_LEN), done: 0, is_broken: false };
        Ok(Self { socket, epoll, waits_for, input, output, notice: None })
    }

    fn end(&mut self, why: String) -> io::Result<usize> {
        self.input.has_ended = true;
        self.notice = Some(why);
        Ok(0)
    }
}

/// The socket. std writes to it by write or by sendto.
const CALLS: &[Allow] =
    &[Allow::masked(libc::SYS_sendto, 3, libc::MSG_FASTOPEN as u32, 0), Allow::call(libc::SYS_recvfrom)];

impl Link for StreamLink {
    fn needs(&self) -> Needs {
        Needs::calls(&[CALLS])
    }

    fn send(&mut self, frame: &Buffers<'_>) -> io::Result<()> {
        self.output.go_on(&self.socket);
        if self.output.is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.output.is_broken || self.input.has_ended {
            return Err(io::ErrorKind::NotConnected.into());
        }
        // Without the header: no offloads were offered to the guest.
        let body = frame.split_at(HEADER_LEN as u64).map(|(_, body)| body);
        let body = body.ok_or(io::ErrorKind::InvalidInput)?;
        let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.output.set(len, |bytes| body.read(bytes).map_err(io::Error::other))?;
        self.output.go_on(&self.socket);
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input.has_ended {
            return Ok(0);
        }
        loop {
            match self.input.frame_len() {
                Err(len) => {
                    let why = format!("a frame of {len} bytes arrived, which is invalid: its link is down");
                    return self.end(why);
                }
                Ok(Some(len)) => return Ok(self.input.take(len, into)),
                Ok(None) => {}
            }
            match self.input.read(&self.socket) {
                Ok(0) => {
                    return self.end("its peer has closed the socket: its link is down".to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => return self.end(format!("{error}: its link is down")),
                Ok(_) => {}
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// None: frames have no header here.
    fn set_offloads(&mut self, _offloads: u32) -> io::Result<()> {
        Ok(())
    }

    fn set_attached(&mut self, _is_attached: bool) -> io::Result<()> {
        Ok(())
    }

    fn wait_for(&mut self, frames: bool) -> io::Result<bool> {
        let when = |is_so: bool, flags| if is_so { flags } else { epoll::EventFlags::empty() };
        let frames = frames && !self.input.has_ended;
        let wanted =
            when(frames, epoll::EventFlags::IN) | when(self.output.is_pending(), epoll::EventFlags::OUT);
        if wanted != self.waits_for {
            epoll::modify(&self.epoll, &self.socket, epoll::EventData::new_u64(0), wanted)?;
            self.waits_for = wanted;
        }
        Ok(!wanted.is_empty())
    }

    fn go_on(&mut self) {
        self.output.go_on(&self.socket);
    }

    fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }
}

impl Input {
    /// The length of the buffered frame, if it is complete.
    ///
    /// # Errors
    /// The invalid length of a frame.
    fn frame_len(&self) -> Result<Option<usize>, u32> {
        let Some(len) = self.announced() else { return Ok(None) };
        let fits = (1..=BODY_LEN).contains(&(len as usize));
        if !fits {
            return Err(len);
        }
        Ok((self.have >= LENGTH_LEN + len as usize).then_some(len as usize))
    }

    fn announced(&self) -> Option<u32> {
        let first = self.bytes.first_chunk().filter(|_| self.have >= LENGTH_LEN)?;
        Some(u32::from_be_bytes(*first))
    }

    /// Copies a complete frame after a zero header.
    fn take(&mut self, len: usize, into: &mut [u8]) -> usize {
        let end = LENGTH_LEN + len;
        into[..HEADER_LEN].fill(0);
        let room = len.min(into.len() - HEADER_LEN);
        into[HEADER_LEN..HEADER_LEN + room].copy_from_slice(&self.bytes[LENGTH_LEN..LENGTH_LEN + room]);
        self.bytes.copy_within(end..self.have, 0);
        self.have -= end;
        HEADER_LEN + room
    }

    /// Reads up to the end of a frame plus the length of the next one.
    fn read(&mut self, mut socket: &UnixStream) -> io::Result<usize> {
        let end = match self.announced() {
            Some(len) => LENGTH_LEN + len as usize + LENGTH_LEN,
            None => LENGTH_LEN,
        };
        loop {
            match socket.read(&mut self.bytes[self.have..end]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.have += count;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Output {
    fn is_pending(&self) -> bool {
        self.done < self.bytes.len()
    }

    /// Replaces the sent frame with one of `len` bytes, which `fill` writes.
    fn set(&mut self, len: u32, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.resize(LENGTH_LEN + len as usize, 0);
        self.done = 0;
        let filled = fill(&mut self.bytes[LENGTH_LEN..]);
        if filled.is_err() {
            self.bytes.clear();
        }
        filled
    }

    /// Sends as much as the socket accepts. Drops what it never will.
    fn go_on(&mut self, mut socket: &UnixStream) {
        while self.is_pending() {
            match socket.write(&self.bytes[self.done..]) {
                Ok(count) if count > 0 => self.done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {
                    self.is_broken = true;
                    self.bytes.clear();
                    self.done = 0;
                }
            }
        }
    }
}
