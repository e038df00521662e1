//! What a console needs of the guest's end of its line.

use std::fmt;
use std::sync::Arc;

use vmm_bus::{Overflow, Taken};
use vmm_devices::SerialLine;
use vmm_sys_util::eventfd::EventFd;
use vmm_virtio::{HostPort, TerminalSize};

/// The guest's end of a line: bounded both ways, and nothing of it waits.
pub(crate) trait Line: fmt::Debug + Send + Sync {
    /// Readable when output has come. Read it, then [`take`](Self::take) until nothing comes.
    fn output_ready(&self) -> &EventFd;

    /// Moves the oldest output into `into`.
    fn take(&self, into: &mut [u8]) -> Taken;

    /// Chooses what happens to output from now on. `true` means that vCPUs were held: wake them.
    #[must_use]
    fn set_overflow(&self, overflow: Overflow) -> bool;

    /// Whether all output has been taken.
    fn is_drained(&self) -> bool;

    /// Bytes of output that nobody will ever see.
    fn lost(&self) -> u64;

    /// Adds the monitor's own words to the output.
    fn say(&self, text: &[u8]);

    /// Bytes that [`send`](Self::send) would take now. If 0, [`wants_input`](Self::wants_input) tells when to look again.
    fn room(&self) -> usize;

    /// Types `bytes` and returns how many were taken. If not all, [`wants_input`](Self::wants_input) tells when to go on.
    fn send(&self, bytes: &[u8]) -> usize;

    /// What was sent and the guest hasn't read, where a reset of the machine would lose it.
    fn unread(&self) -> Vec<u8>;

    /// Readable when there is room for input that didn't fit before.
    fn wants_input(&self) -> &EventFd;

    /// The terminal has this size.
    fn resize(&self, size: TerminalSize);
}

impl<L: SerialLine + ?Sized> Line for Arc<L> {
    fn output_ready(&self) -> &EventFd {
        self.output().ready()
    }

    fn take(&self, into: &mut [u8]) -> Taken {
        self.output().take(into)
    }

    fn set_overflow(&self, overflow: Overflow) -> bool {
        self.output().set_overflow(overflow)
    }

    fn is_drained(&self) -> bool {
        self.output().is_drained()
    }

    fn lost(&self) -> u64 {
        self.output().lost()
    }

    fn say(&self, text: &[u8]) {
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

    /// A serial line has no way to tell.
    fn resize(&self, _size: TerminalSize) {}
}

impl Line for HostPort {
    fn output_ready(&self) -> &EventFd {
        HostPort::output_ready(self)
    }

    /// The device goes on by itself: nobody is to be woken.
    fn take(&self, into: &mut [u8]) -> Taken {
        Taken { len: HostPort::take(self, into), wake: false }
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

    fn lost(&self) -> u64 {
        HostPort::lost(self)
    }

    fn say(&self, text: &[u8]) {
        HostPort::say(self, text);
    }

    fn room(&self) -> usize {
        HostPort::room(self)
    }

    fn send(&self, bytes: &[u8]) -> usize {
        HostPort::send(self, bytes)
    }

    /// The port goes on with the next machine, and what is in it too.
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
