//! The host's end of a queue pair.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use vmm_hostio::{FRAME_PORT_CALLS, FramePort, IoSlices};
use vmm_virtio::{Buffers, Needs, Undelivered};

use super::sizes::QUEUE_SIZE;

/// A TCP connection that the guest regards as open, and that ends when its link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestTcp {
    pub(super) guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub(super) remote: SocketAddr,
    /// Sequence number of the next byte to the guest.
    pub(super) next: u32,
    /// Sequence number of the next byte from the guest.
    pub(super) wanted: u32,
}

/// Sends and receives frames, each preceded by a struct virtio_net_hdr_v1. Never blocks.
pub(super) trait Link: Send {
    /// As [`VirtioDevice::needs`](vmm_virtio::VirtioDevice::needs).
    fn needs(&self) -> Needs;

    /// Sends a frame of the guest, which has a valid length.
    ///
    /// # Errors
    /// The frame is dropped.
    fn send(&mut self, frame: &Buffers<'_>) -> io::Result<()>;

    /// Receives a frame for the guest, truncated to `into`. 0 means that the link has ended.
    ///
    /// # Errors
    /// `WouldBlock` if there is none now; other errors mean that the link has ended.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Readable (level-triggered) when there is a frame.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Sets which offloads the guest accepts, as TUN_F_ bits.
    ///
    /// # Errors
    /// One of them isn't supported.
    fn set_offloads(&mut self, offloads: u32) -> io::Result<()>;

    /// Whether the guest uses this pair, if there are several.
    ///
    /// # Errors
    /// The host refuses.
    fn set_attached(&mut self, is_attached: bool) -> io::Result<()>;

    /// Whether the guest has a driver for the card; initially it doesn't.
    fn set_driven(&mut self, is_driven: bool) {
        let _ = is_driven;
    }

    /// The guest is gone, and another may follow.
    fn forget_guest(&mut self) {}

    /// As [`VirtioDevice::deliver`](vmm_virtio::VirtioDevice::deliver).
    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        let _ = patience;
        Vec::new()
    }

    /// Makes the descriptor ready when there are frames, if these are wanted, and when pending work of the
    /// link can continue. Returns whether there is anything to wait for.
    ///
    /// # Errors
    /// The host is out of memory.
    fn wait_for(&mut self, frames: bool) -> io::Result<bool> {
        Ok(frames)
    }

    /// Continues pending work as far as possible, after its descriptor became ready.
    fn go_on(&mut self) {}

    /// A message for the log; a bounded number in total.
    fn take_notice(&mut self) -> Option<String> {
        None
    }

    /// A destination that its rules have refused for the first time.
    fn take_refused(&mut self) -> Option<String> {
        None
    }

    /// Number of frames refused by its rules so far.
    fn refused(&self) -> u64 {
        0
    }

    /// The TAP queue behind this link, which the host's kernel can serve directly.
    fn port(&self) -> Option<&FramePort> {
        None
    }

    /// The guest's connections that a reset of another link ends.
    fn open_tcp(&self) -> Vec<GuestTcp> {
        Vec::new()
    }

    /// Resets connections that the guest had by another link. False if this link doesn't do that.
    fn reset_tcp(&mut self, open: Vec<GuestTcp>) -> bool {
        let _ = open;
        false
    }

    /// Whether a sent frame may produce a response before the descriptor becomes ready.
    fn answers(&self) -> bool {
        false
    }
}

/// A TAP queue or a socket. The kernel accesses guest memory directly.
pub(super) struct PortLink {
    port: FramePort,
    /// Slices of the frame being sent.
    slices: IoSlices,
}

impl PortLink {
    pub(super) fn new(port: FramePort) -> Self {
        Self { port, slices: IoSlices::with_capacity(QUEUE_SIZE.into()) }
    }
}

impl Link for PortLink {
    fn needs(&self) -> Needs {
        Needs::calls(&[FRAME_PORT_CALLS])
    }

    /// The kernel reads the header once and validates it (Linux, drivers/net/tun.c, tun_get_user).
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
