//! Clients of a pty or a socket, which come and go.

use std::io;

use event_manager::EventOps;
use rustix::io::ioctl_fionread;
use tracing::{error, info, warn};
use vmm_bus::Overflow;
use vmm_hostio::descriptor_remedy;

use super::super::link::Link;
use super::super::peer::Peer;
use super::{Console, Raw};
use crate::message::Message;

impl Console {
    /// A socket's client has hung up while it wasn't read from, or a pty's last client has closed it.
    pub(super) fn hung_up(&mut self, ops: &mut EventOps<'_>) {
        if matches!(self.peer, Peer::Pty(_)) {
            self.stop_output(ops);
            return self.await_arrival(ops);
        }
        let unread = self.link.input.as_ref().map(ioctl_fionread);
        let is_heard_out = self.typed.is_empty() && matches!(unread, None | Some(Ok(0)));
        if is_heard_out {
            return self.disconnect(ops);
        }
        if let Some(fd) = &self.link.input {
            self.hang_up.disarm(fd, ops);
        }
        self.stop_output(ops);
        self.departed.begin();
        self.await_arrival(ops);
    }

    /// The guest has read nothing of a disconnected client's input for too long while another client waits.
    pub(super) fn drop_departed_input(&mut self, ops: &mut EventOps<'_>) {
        if !self.guest_runs && self.departed.hurry(ops) {
            return;
        }
        warn!("{}: the guest isn't reading its input; the input of a disconnected client is lost", self.name);
        self.disconnect(ops);
    }

    /// The socket's client has gone: waits for the next one, for which the newest output is kept.
    pub(super) fn disconnect(&mut self, ops: &mut EventOps<'_>) {
        let link = std::mem::take(&mut self.link);
        if let Some(fd) = &link.input {
            self.input.disarm(fd, ops);
            self.hang_up.disarm(fd, ops);
        }
        if let Some(fd) = &link.output {
            self.output.disarm(fd, ops);
        }
        if let Some(fd) = &self.silent.take() {
            self.hang_up.disarm(fd, ops);
        }
        drop(link);
        self.departed.end(ops);
        self.typed.clear();
        if self.line.set_overflow(Overflow::DropOldest) {
            self.send(Message::Wake);
        }
        self.await_arrival(ops);
    }

    pub(super) fn await_arrival(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = self.peer.arrival_fd() {
            self.arrival.arm(&Raw(fd), ops);
        }
    }

    /// The host can't connect a client now. Logged once: whoever connects mustn't fill the log.
    fn report_waiting_client(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.has_reported_waiting, true) {
            let remedy = descriptor_remedy(error);
            error!("{}: can't connect a client, which waits until it can be: {error}{remedy}", self.name);
        }
    }

    pub(super) fn arrived(&mut self, ops: &mut EventOps<'_>) {
        self.peer.acknowledge_arrival();
        if self.departed.is_draining() {
            if let Some(fd) = self.peer.arrival_fd() {
                self.arrival.disarm(&Raw(fd), ops);
            }
            if !self.departed.hurry(ops) {
                self.drop_departed_input(ops);
            }
            return;
        }
        let before = self.peer.arrival_fd();
        let connected = self.peer.try_connect();
        let after = self.peer.arrival_fd();
        if let Some(fd) = before.filter(|_| before != after || matches!(connected, Ok(Some(_)))) {
            self.arrival.disarm(&Raw(fd), ops);
        }
        let link = match connected {
            Ok(Some(link)) => link,
            Ok(None) => return self.await_arrival(ops),
            Err(error) => {
                self.report_waiting_client(&error);
                return self.await_arrival(ops);
            }
        };
        info!("{} client connected", self.name);
        // A pty's input stays open.
        self.link = Link { input: link.input.or(self.link.input.take()), output: link.output };
        // Ignored: a change to `Hold` never has to wake a vCPU.
        let _ = self.line.set_overflow(Overflow::Hold);
        self.resized();
        self.pump_output(ops);
        self.pump_input(ops);
    }
}
