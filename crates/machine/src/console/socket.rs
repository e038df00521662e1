//! A unix socket, and its clients, one at a time.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use vmm_hostio::NamedSocket;
use vmm_sys_util::timerfd::TimerFd;

use super::link::Link;
use crate::fd::HostFd;

/// When a client that the host had no descriptor for is tried again. Nothing reports that one is free.
const RETRY: Duration = Duration::from_millis(100);

/// A listening socket. A client that can't be accepted stays in the backlog, where it would be reported without end: until the next
/// attempt the timer is watched instead.
#[derive(Debug)]
pub(super) struct Socket {
    listener: NamedSocket,
    timer: TimerFd,
    /// The last attempt failed, and the timer is set.
    is_retrying: bool,
    /// A client that was accepted, but whose descriptor couldn't be duplicated.
    accepted: Option<HostFd>,
}

impl Socket {
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let listener = NamedSocket::listen(path).map_err(io::Error::from)?;
        Ok(Self { listener, timer: TimerFd::new()?, is_retrying: false, accepted: None })
    }

    pub(super) fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Readable when a client may be waiting. Changes with each call of [`connect`](Self::connect).
    pub(super) fn arrival_fd(&self) -> RawFd {
        if self.is_retrying { self.timer.as_raw_fd() } else { self.listener.as_raw_fd() }
    }

    /// Connects to a waiting client, if there is one.
    ///
    /// # Errors
    /// The host is out of descriptors or memory: the client waits for the next call.
    pub(super) fn connect(&mut self) -> io::Result<Option<Link>> {
        // The timer's expiry isn't read: setting it again clears it.
        self.is_retrying = false;
        let connected = self.try_connect();
        if connected.is_err() {
            self.is_retrying = self.timer.reset(RETRY, None).is_ok();
        }
        connected
    }

    fn try_connect(&mut self) -> io::Result<Option<Link>> {
        let output = match self.accepted.take() {
            Some(client) => client,
            None => match self.listener.accept() {
                Ok(stream) => HostFd::owned(stream.into())?,
                // There is none, or it has gone.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        match output.try_clone() {
            Ok(input) => Ok(Some(Link { input: Some(input), output: Some(output) })),
            Err(error) => {
                self.accepted = Some(output);
                Err(error)
            }
        }
    }
}
