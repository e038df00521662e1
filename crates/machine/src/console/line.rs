//! The interface of a console to the guest's end of its line.

use std::fmt;
use std::sync::Arc;

use vmm_bus::EventFd;
use vmm_bus::{Overflow, TakeOutcome};
use vmm_devices::SerialLine;
use vmm_virtio::{HostPort, TerminalSize};

/// The guest's end of a console line. Both directions are bounded, and no method blocks.
pub(crate) trait Line: fmt::Debug + Send + Sync {
    /// Readable when there is output. Read it, then [`take`](Self::take) until nothing is left.
    fn output_ready(&self) -> &EventFd;

    /// Moves the oldest output to `into`.
    fn take(&self, into: &mut [u8]) -> TakeOutcome;

    /// Sets what happens to output when the queue is full. Returns `true` if held vCPUs must be woken.
    #[must_use]
    fn set_overflow(&self, overflow: Overflow) -> bool;

    /// Whether all output has been taken.
    fn is_drained(&self) -> bool;

    /// Bytes of output that haven't been taken.
    fn queued(&self) -> usize;

    /// Bytes of output that were dropped.
    fn lost(&self) -> u64;

    /// Adds text of the monitor to the output.
    fn push_output(&self, text: &[u8]);

    /// Bytes that [`send`](Self::send) would take now. If 0, try again after [`wants_input`](Self::wants_input).
    fn room(&self) -> usize;

    /// Sends `bytes` to the guest and returns how many were taken. If not all, go on after [`wants_input`](Self::wants_input).
    fn send(&self, bytes: &[u8]) -> usize;

    /// Sent bytes that the guest hasn't read and that a reset of the machine would lose.
    fn unread(&self) -> Vec<u8>;

    /// Readable when there is room for input that didn't fit before.
    fn wants_input(&self) -> &EventFd;

    /// Sets the terminal's size.
    fn resize(&self, size: TerminalSize);
}

impl<L: SerialLine + ?Sized> Line for Arc<L> {
    fn output_ready(&self) -> &EventFd {
        self.output().ready()
    }

    fn take(&self, into: &mut [u8]) -> TakeOutcome {
        self.output().take(into)
    }

    fn set_overflow(&self, overflow: Overflow) -> bool {
        self.output().set_overflow(overflow)
    }

    fn is_drained(&self) -> bool {
        self.output().is_drained()
    }

    fn queued(&self) -> usize {
        self.output().queued()
    }

    fn lost(&self) -> u64 {
        self.output().lost()
    }

    fn push_output(&self, text: &[u8]) {
        self.output().push(text);
    }

    fn room(&self) -> usize {
        SerialLine::room(&**self)
    }

    fn send(&self, bytes: &[u8]) -> usize {
        SerialLine::send(&**self, bytes)
    }

    fn unread(&self) -> Vec<u8> {
        SerialLine::unread(&**self)
    }

    fn wants_input(&self) -> &EventFd {
        SerialLine::wants_input(&**self)
    }

    /// A serial line can't transmit it.
    fn resize(&self, _size: TerminalSize) {}
}

impl Line for HostPort {
    fn output_ready(&self) -> &EventFd {
        HostPort::output_ready(self)
    }

    /// The device continues by itself: no vCPU is to be woken.
    fn take(&self, into: &mut [u8]) -> TakeOutcome {
        TakeOutcome { len: HostPort::take(self, into), wake: false }
    }

    fn set_overflow(&self, overflow: Overflow) -> bool {
        match overflow {
            Overflow::Hold => self.reader_came(),
            Overflow::DropOldest => self.reader_left(),
        }
        false
    }

    fn is_drained(&self) -> bool {
        HostPort::is_drained(self)
    }

    fn queued(&self) -> usize {
        HostPort::queued(self)
    }

    fn lost(&self) -> u64 {
        HostPort::lost(self)
    }

    fn push_output(&self, text: &[u8]) {
        HostPort::say(self, text);
    }

    fn room(&self) -> usize {
        HostPort::room(self)
    }

    fn send(&self, bytes: &[u8]) -> usize {
        HostPort::send(self, bytes)
    }

    /// Nothing: the port and its contents are kept for the next machine.
    fn unread(&self) -> Vec<u8> {
        Vec::new()
    }

    fn wants_input(&self) -> &EventFd {
        HostPort::wants_input(self)
    }

    fn resize(&self, size: TerminalSize) {
        HostPort::resize(self, size);
    }
}
