//! A client of the monitor's serial line on a pseudo-terminal or a socket.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::fd::{set_nonblocking, wait_ready};
use crate::terminal::Terminal;
use crate::transcript::find;

/// A client of the serial line. Dropping it disconnects.
#[derive(Debug)]
pub struct Line {
    fd: OwnedFd,
    /// Data that was read but not consumed by an expectation.
    heard: Vec<u8>,
    ended: bool,
}

impl Line {
    /// Opens the pseudo-terminal with this name.
    ///
    /// # Errors
    /// The terminal doesn't exist any more.
    pub fn attach(name: impl AsRef<Path>) -> io::Result<Self> {
        Terminal::attach(name.as_ref()).map(|terminal| Self::new(terminal.into()))
    }

    /// Connects to the Unix socket with this path.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(|stream| Self::new(stream.into()))
    }

    fn new(fd: OwnedFd) -> Self {
        set_nonblocking(&fd);
        Self { fd, heard: Vec::new(), ended: false }
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, mut bytes: &[u8]) {
        let until = Instant::now() + crate::DEADLINE;
        while !bytes.is_empty() {
            assert!(wait_ready(&self.fd, PollFlags::POLLOUT, Some(until)), "the line accepts no input");
            match nix::unistd::write(&self.fd, bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => panic!("the line was closed: {errno}"),
            }
        }
    }

    /// Shuts down the write side of a socket, which can still be read.
    pub fn end_input(&mut self) {
        let stream = UnixStream::from(self.fd.try_clone().expect("a descriptor"));
        stream.shutdown(Shutdown::Write).expect("a socket that is connected");
    }

    /// Waits for `needle` after what earlier calls consumed, and returns the text before it.
    #[track_caller]
    pub fn expect(&mut self, needle: &str, deadline: Duration) -> String {
        let until = Instant::now() + deadline;
        loop {
            if let Some(at) = find(&self.heard, needle.as_bytes()) {
                let rest = self.heard.split_off(at + needle.len());
                let found = std::mem::replace(&mut self.heard, rest);
                return String::from_utf8_lossy(&found[..at]).into_owned();
            }
            let more = !self.ended && self.read(until);
            assert!(more, "no {needle:?} on the line, only {:?}", self.heard.escape_ascii().to_string());
        }
    }

    /// Waits until the peer disconnects.
    #[track_caller]
    pub fn expect_end(&mut self, deadline: Duration) {
        let until = Instant::now() + deadline;
        while !self.ended {
            assert!(self.read(until), "the line doesn't end");
        }
    }

    /// Reads the next data. False if there is none by `until`.
    fn read(&mut self, until: Instant) -> bool {
        let ready = wait_ready(&self.fd, PollFlags::POLLIN, Some(until));
        let mut bytes = [0; 4096];
        match nix::unistd::read(&self.fd, &mut bytes) {
            Ok(len) if len > 0 => self.heard.extend_from_slice(&bytes[..len]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            _ => self.ended = true,
        }
        ready
    }
}
