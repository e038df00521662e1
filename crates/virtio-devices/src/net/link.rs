//! What a pair of queues ends in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use vmm_hostio::{FramePort, IoSlices};
use vmm_virtio::Buffers;

use super::sizes::QUEUE_SIZE;

/// A way for frames, each behind a struct virtio_net_hdr_v1. It never blocks.
pub(super) trait Link: Send {
    /// Sends a frame of the guest's, of a length that a frame can have.
    ///
    /// # Errors
    /// It isn't sent, and won't be.
    fn send(&mut self, frame: &Buffers<'_>) -> io::Result<()>;

    /// Takes a frame for the guest; what is longer than `into` is cut. 0 is the end: there will be none any more.
    ///
    /// # Errors
    /// `WouldBlock` if there is none now; others as 0.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// What can be read, level-triggered, when there is a frame.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Says what the other side may leave to the guest, as TUN_F_ bits.
    ///
    /// # Errors
    /// It doesn't know one of them.
    fn set_offloads(&mut self, offloads: u32) -> io::Result<()>;

    /// Whether the guest uses this pair of several.
    ///
    /// # Errors
    /// The host refuses.
    fn set_attached(&mut self, is_attached: bool) -> io::Result<()>;

    /// Says whether the guest has a driver for the card; from the beginning it has none.
    fn set_driven(&mut self, is_driven: bool) {
        let _ = is_driven;
    }

    /// Makes its descriptor ready when there are frames, if they are wanted, and when it can go on with what it began itself.
    /// Whether there is anything to wait for.
    ///
    /// # Errors
    /// The host is out of memory.
    fn wait_for(&mut self, frames: bool) -> io::Result<bool> {
        Ok(frames)
    }

    /// Goes on with what it began, as far as it can: its descriptor is ready.
    fn go_on(&mut self) {}

    /// What whoever runs the machine should know, a bounded number of times.
    fn take_notice(&mut self) -> Option<String> {
        None
    }

    /// How much its rules have refused so far.
    fn refused(&self) -> u64 {
        0
    }

    /// The queue of a TAP that it is, which the host's kernel can serve by itself.
    fn port(&self) -> Option<&FramePort> {
        None
    }

    /// Whether what is sent may have its answer at once, before the descriptor says so.
    fn answers(&self) -> bool {
        false
    }
}

/// A queue of a TAP, or a socket. The kernel reads and writes guest memory itself.
pub(super) struct PortLink {
    port: FramePort,
    /// What is sent just now.
    slices: IoSlices,
}

impl PortLink {
    pub(super) fn new(port: FramePort) -> Self {
        Self { port, slices: IoSlices::with_capacity(QUEUE_SIZE.into()) }
    }
}

impl Link for PortLink {
    /// The kernel reads the header once and checks it (Linux, drivers/net/tun.c, tun_get_user).
    fn send(&mut self, frame: &Buffers<'_>) -> io::Result<()> {
        self.slices.fill(frame)?;
        let sent = loop {
            match self.port.send(&self.slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.slices.clear();
        sent.map(drop)
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.port.receive(into)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.port.file().as_fd()
    }

    fn port(&self) -> Option<&FramePort> {
        Some(&self.port)
    }

    fn set_offloads(&mut self, offloads: u32) -> io::Result<()> {
        self.port.set_offloads(offloads)
    }

    fn set_attached(&mut self, is_attached: bool) -> io::Result<()> {
        self.port.set_attached(is_attached)
    }
}
