//! What the guest prints: from the line to the peer.

use std::time::Instant;

use event_manager::EventOps;
use tracing::error;
use vmm_bus::Overflow;

use super::super::peer::Peer;
use super::{Console, PATIENCE_AT_END, TURNS};
use crate::message::Message;
use crate::transfer::Transfer;

impl Console {
    /// Moves output to the host until one side blocks.
    pub(super) fn pump_output(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..TURNS {
            // Without a link the output stays in the line.
            let Some(fd) = &self.link.output else { return };
            if self.start == self.end {
                if self.pace.is_pausing() {
                    self.output.disarm(fd, ops);
                    return;
                }
                let taken = self.line.take(&mut self.chunk[..]);
                (self.start, self.end) = (0, taken.len);
                if taken.wake {
                    self.send(Message::Wake);
                }
                if taken.len == 0 {
                    self.output.disarm(fd, ops);
                    return;
                }
                if self.pace.took(taken.len, ops) {
                    self.ready.disarm(self.line.output_ready(), ops);
                }
            }
            match fd.write(&self.chunk[self.start..self.end]) {
                Transfer::Moved(len) => self.start += len,
                Transfer::Blocked => {
                    self.output.arm(fd, ops);
                    return;
                }
                Transfer::Ended => return self.output_ended(ops),
                Transfer::Failed(errno) => self.lose(errno.desc()),
            }
        }
        // There may be more. The eventfd brings us back after the other sources.
        let _ = self.line.output_ready().write(1);
    }

    /// The pause is over: writes what has gathered, and watches the line again.
    pub(super) fn end_pause(&mut self, ops: &mut EventOps<'_>) {
        self.pace.over();
        self.ready.arm(self.line.output_ready(), ops);
        self.pump_output(ops);
    }

    /// Drops a chunk that can't be written, for instance because a disk is full. The guest goes on.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.lost == 0 {
            let name = match &self.peer {
                Peer::Fixed { name, .. } => name.clone(),
                Peer::Pty(pty) => pty.name.clone(),
                Peer::Socket(socket) => socket.path().display().to_string(),
            };
            error!("{} output to {name}: {reason}; what can't be written is lost", self.name);
        }
        self.lost += (self.end - self.start) as u64;
        self.start = self.end;
    }

    /// The monitor ends: writes the output that is left, as far as that needs no reader. Returns the number of bytes that are lost.
    pub(in crate::console) fn write_rest(&mut self) -> usize {
        let Some(fd) = self.link.output.take() else { return 0 };
        let until = Instant::now() + PATIENCE_AT_END;
        // A vCPU that couldn't be stopped may print without end.
        while Instant::now() < until {
            if self.start == self.end {
                (self.start, self.end) = (0, self.line.take(&mut self.chunk[..]).len);
            }
            if self.start == self.end {
                return 0;
            }
            match fd.write(&self.chunk[self.start..self.end]) {
                Transfer::Moved(len) => self.start += len,
                Transfer::Blocked if fd.wait(until.saturating_duration_since(Instant::now())) => {}
                // Whoever closes our standard output doesn't miss it.
                Transfer::Ended if matches!(self.peer, Peer::Fixed { is_stdout: true, .. }) => return 0,
                Transfer::Blocked | Transfer::Ended | Transfer::Failed(_) => break,
            }
        }
        self.end - self.start + self.line.queued()
    }

    pub(super) fn output_ended(&mut self, ops: &mut EventOps<'_>) {
        match &self.peer {
            Peer::Fixed { is_stdout: true, .. } => {
                if let Some(fd) = self.link.output.take() {
                    self.output.disarm(&fd, ops);
                }
                self.send(Message::OutputClosed);
            }
            Peer::Fixed { .. } => self.lose("the other end was closed"),
            // The input of a client that has disconnected, such as `echo reboot | nc`, is still delivered.
            Peer::Socket(_) if self.link.input.is_some() => self.stop_output(ops),
            Peer::Pty(_) => self.hung_up(ops),
            Peer::Socket(_) => self.disconnect(ops),
        }
    }

    /// The client no longer reads, but its input may still arrive. The newest output is kept for the next client.
    pub(super) fn stop_output(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = self.link.output.take() {
            self.output.disarm(&fd, ops);
        }
        if self.line.set_overflow(Overflow::DropOldest) {
            self.send(Message::Wake);
        }
    }
}
