//! The data of a connection, between its smoltcp socket and the host's.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use smoltcp::socket::tcp::State;

use super::{Phase, Tcp};

impl Tcp {
    /// Moves as much data as possible in both directions.
    pub(super) fn exchange(&mut self) {
        let outcome = self.send_to_host().and_then(|()| self.receive_from_host());
        if outcome.is_err() {
            self.fail();
        }
    }

    /// The host's side has failed: resets the guest's.
    pub(super) fn fail(&mut self) {
        if !std::mem::replace(&mut self.failed, true)
            && let Some(endpoint) = &mut self.endpoint
        {
            endpoint.socket_mut().abort();
        }
    }

    pub(super) fn send_to_host(&mut self) -> Result<(), Errno> {
        self.write_kept()?;
        let is_all_written = self.kept_len() == 0;
        if self.phase != Phase::Draining {
            self.set_undelivered(!is_all_written);
        }
        if self.guest_ended && !self.sent_end && is_all_written {
            self.sent_end = true;
            // If it fails, the host's peer is gone, which reading will report.
            let _ = rustix::net::shutdown(&self.host, Shutdown::Write);
        }
        Ok(())
    }

    /// Writes data of the guest to the host's socket, as far as that takes it.
    fn write_kept(&mut self) -> Result<(), Errno> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        let socket = endpoint.socket_mut();
        self.guest_ended |=
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        while self.writable && socket.can_recv() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = socket.recv(|bytes| match rustix::net::send(&self.host, bytes, flags) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match sent {
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Ok(len)) => self.written += len as u64,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
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
                    (self.readable, self.host_ended) = (false, true);
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
