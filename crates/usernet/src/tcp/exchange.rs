//! The data of a connection, between its smoltcp socket and the host's.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use smoltcp::socket::tcp::State;

use super::{Phase, Tcp};
use crate::host;
use crate::undelivered::UndeliveredTcp;

impl Tcp {
    /// Moves as much data as possible in both directions.
    pub(super) fn exchange(&mut self) {
        let outcome = self.send_to_host().and_then(|()| self.receive_from_host());
        if outcome.is_err() && !self.failed {
            self.failed = true;
            if let Some(endpoint) = &mut self.endpoint {
                endpoint.socket_mut().abort();
            }
        }
    }

    /// The guest is gone. Returns whether data that was acknowledged to it remains to be delivered.
    pub(crate) fn forget_guest(&mut self) -> bool {
        self.guest_ended = true;
        self.phase = Phase::Draining;
        self.deliver().is_some()
    }

    /// Passes data that was acknowledged to the guest to the host, and returns what remains; `None` also if the
    /// host's side has failed.
    pub(crate) fn deliver(&mut self) -> Option<UndeliveredTcp> {
        self.failed |= self.send_to_host().is_err();
        let len = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.socket().recv_queue());
        let Self { guest, remote, .. } = *self;
        (len > 0 && !self.failed).then_some(UndeliveredTcp { guest, remote, len })
    }

    fn send_to_host(&mut self) -> Result<(), Errno> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        let socket = endpoint.socket_mut();
        self.guest_ended |=
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        while self.writable && socket.can_recv() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = socket.recv(|bytes| match rustix::net::send(&self.host, bytes, flags) {
                Ok(len) => (len, Ok(())),
                Err(error) => (0, Err(error)),
            });
            match sent {
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) | Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let has_undelivered = socket.can_recv();
        if has_undelivered != self.has_undelivered {
            self.has_undelivered = has_undelivered;
            // Even if the monitor is killed, the peer can't mistake what it has received for everything.
            host::close_by_reset(&self.host, has_undelivered);
        }
        if self.guest_ended && !self.sent_end && !has_undelivered {
            self.sent_end = true;
            // If it fails, the host's peer is gone, which reading will report.
            let _ = rustix::net::shutdown(&self.host, Shutdown::Write);
        }
        Ok(())
    }

    fn receive_from_host(&mut self) -> Result<(), Errno> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        let socket = endpoint.socket_mut();
        // The end of the host's data has been read, so reading won't report the reset that followed.
        if self.was_reset
            && matches!(socket.state(), State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck)
        {
            return Err(Errno::CONNRESET);
        }
        while self.readable && socket.can_send() {
            let received =
                socket.send(|room| match rustix::net::recv(&self.host, &mut *room, RecvFlags::DONTWAIT) {
                    Ok((len, _)) => (len, Ok((len, len < room.len()))),
                    Err(error) => (0, Err(error)),
                });
            match received {
                Ok(Ok((0, _))) => {
                    self.readable = false;
                    socket.close();
                }
                // A short read means that there is no more (epoll(7)), unless the end follows, which isn't
                // reported again.
                Ok(Ok((_, is_short))) => self.readable = !is_short || self.hung_up,
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}
