//! Queues that the host's kernel serves (vhost): a device lends them, and gets them back when it stops.
//!
//! ```text
//!  vCPU --notification, an eventfd that KVM writes--> kernel: chains <--> a TAP's queue, or a host's sockets
//!  vCPU <-interrupt-- vq-<id> <--eventfd (call)---------+
//!                     vq-<id> <--eventfd (error): a chain or a ring that the kernel can't use
//! ```
//!
//! The interrupt goes through the device's thread, for a driver of virtio over MMIO first asks InterruptStatus for its cause.

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_hostio::{FramePort, Vhost, VhostError, VhostRing};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{Fault, Queue, Session};

/// virtio 1.2 §5.10.3.
const VIRTIO_VSOCK_F_SEQPACKET: u32 = 1;
/// What the transport offers for every device's rings.
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

impl From<VhostError> for Fault {
    fn from(error: VhostError) -> Self {
        Self::Refused { call: error.call, errno: error.source.raw_os_error().unwrap_or(0) }
    }
}

/// How many tokens a [`VhostNet`] or a [`VhostVsock`] watches with.
pub const VHOST_TOKENS: u32 = 1 + RINGS as u32;
/// The queues of each: from the host and to it.
const RINGS: usize = 2;

/// A pair of a network card's queues with the kernel's /dev/vhost-net, between which and a TAP it carries frames.
#[derive(Debug)]
pub struct VhostNet(Server);

impl VhostNet {
    /// Opens it.
    ///
    /// # Errors
    /// The host has none, or it isn't open to the user; the kernel's is too old.
    pub fn open() -> Result<Self, VhostError> {
        Server::open("/dev/vhost-net", RING_FEATURES | 1 << VIRTIO_NET_F_MRG_RXBUF, 0).map(Self)
    }

    /// Lends the kernel the queues `receive` and `receive + 1`, as far as the driver set them up, until
    /// [`stop`](Self::stop). [`event`](Self::event) is for `token` and those behind it, [`VHOST_TOKENS`] together.
    ///
    /// # Errors
    /// The kernel refuses, or a ring lies in two regions of RAM. Nothing is lent then.
    pub fn start(
        &mut self,
        port: &FramePort,
        receive: usize,
        token: u32,
        session: &mut Session,
    ) -> Result<(), Fault> {
        let lent = self.0.lend(receive, token, session);
        let started = lent.and_then(|()| {
            self.0.rings().try_for_each(|ring| self.0.kernel.set_backend(ring, Some(port.file())))?;
            Ok(())
        });
        self.0.kick();
        started.inspect_err(|_| self.stop(session))
    }

    /// For a descriptor that it watches: `token` counts from that of [`start`](Self::start).
    ///
    /// # Errors
    /// The driver broke the rules, which the kernel found; it has stopped.
    pub fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.0.event(token).inspect_err(|_| self.stop(session))
    }

    /// Takes the queues back, if they are lent: when this returns the kernel touches them no more.
    pub fn stop(&mut self, session: &mut Session) {
        for ring in self.0.rings() {
            // Only a ring that there isn't could be the reason.
            let _ = self.0.kernel.set_backend(ring, None);
        }
        self.0.take_back(session);
    }

    /// The guest and its memory are no more; another one comes.
    pub fn forget_guest(&mut self) {
        self.0.kernel.forget_memory();
    }
}

/// A socket device's queues with the kernel's /dev/vhost-vsock, between which and programs' AF_VSOCK sockets it carries data.
#[derive(Debug)]
pub struct VhostVsock(Server);

impl VhostVsock {
    /// Opens it for a guest with this address.
    ///
    /// # Errors
    /// The host has none, or it isn't open to the user; the kernel's is too old. Another guest has the address:
    /// [`AddrInUse`](std::io::ErrorKind::AddrInUse).
    pub fn open(cid: u32) -> Result<Self, VhostError> {
        let server = Server::open("/dev/vhost-vsock", RING_FEATURES, 1 << VIRTIO_VSOCK_F_SEQPACKET)?;
        server.kernel.set_guest_cid(cid.into())?;
        Ok(Self(server))
    }

    /// The features of its kind that the kernel has.
    pub fn features(&self) -> u64 {
        self.0.features & !RING_FEATURES
    }

    /// Lends the kernel the queues 0 and 1, if the driver set up both, until [`stop`](Self::stop). Tokens as
    /// [`VhostNet::start`]'s.
    ///
    /// # Errors
    /// As there.
    pub fn start(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let started = self.0.lend(0, token, session).and_then(|()| {
            // The kernel serves both, with what it was told of one before.
            let has_both = self.0.rings().count() == RINGS;
            if has_both { Ok(self.0.kernel.set_running(true)?) } else { Ok(()) }
        });
        self.0.kick();
        started.inspect_err(|_| self.stop(session))
    }

    /// As [`VhostNet::event`].
    ///
    /// # Errors
    /// As there.
    pub fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.0.event(token).inspect_err(|_| self.stop(session))
    }

    /// As [`VhostNet::stop`].
    pub fn stop(&mut self, session: &mut Session) {
        // Only that it isn't ours could be the reason.
        let _ = self.0.kernel.set_running(false);
        self.0.take_back(session);
    }

    /// As [`VhostNet::forget_guest`].
    pub fn forget_guest(&mut self) {
        self.0.kernel.forget_memory();
    }
}

/// What both have in common: a kernel's server and the queues that it has.
#[derive(Debug)]
struct Server {
    kernel: Vhost,
    /// What we let the kernel do with rings and chains, as bits.
    features: u64,
    rings: [Ring; RINGS],
    /// Written when it can't go on with one of them.
    error: EventFd,
}

/// One of the kernel's rings.
#[derive(Debug)]
struct Ring {
    /// Written when chains were used that the driver wants to know of.
    call: EventFd,
    /// The queue that it is, while the kernel has it.
    lent: Option<Queue>,
}

impl Server {
    /// The kernel must have the features that are `needed`, and may have those that are `wanted`.
    fn open(path: &'static str, needed: u64, wanted: u64) -> Result<Self, VhostError> {
        let kernel = Vhost::open(path)?;
        let features = kernel.features()? & (needed | wanted);
        if features & needed != needed {
            let source = std::io::ErrorKind::Unsupported.into();
            return Err(VhostError { call: "VHOST_GET_FEATURES", source });
        }
        let event = || {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            event.map_err(|source| VhostError { call: "eventfd", source })
        };
        let ring = || Ok(Ring { call: event()?, lent: None });
        Ok(Self { kernel, features, rings: [ring()?, ring()?], error: event()? })
    }

    /// Those of its rings that the kernel has.
    fn rings(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.rings).filter(|(_, ring)| ring.lent.is_some()).map(|(index, _)| index)
    }

    /// Tells the kernel what its rings are, the queue `first` and the next one. It doesn't begin.
    fn lend(&mut self, first: usize, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.kernel.set_features(session.features() & self.features)?;
        self.kernel.set_memory(session.ram())?;
        let watched = session.watch(&self.error, token);
        watched.map_err(|source| VhostError { call: "epoll_ctl", source })?;
        for (index, ring) in (0..).zip(&mut self.rings) {
            let queue = first + index as usize;
            let Some(lent) = session.lend(queue) else { continue };
            let lent = ring.lent.insert(lent);
            self.kernel.set_ring(index, place(lent))?.ok_or(Fault::Rings { queue })?;
            // What an earlier driver wasn't told is no news to this one.
            let _ = ring.call.read();
            let watched = session.watch(&ring.call, token + 1 + index);
            watched.map_err(|source| VhostError { call: "epoll_ctl", source })?;
            self.kernel.set_events(index, lent.kick(), &ring.call, &self.error)?;
        }
        Ok(())
    }

    /// Has the kernel look for chains that came while nobody listened: it waits for a write.
    fn kick(&self) {
        for queue in self.rings.iter().filter_map(|ring| ring.lent.as_ref()) {
            // Non-blocking; at its counter's end the kernel is woken too.
            let _ = queue.kick().write(1);
        }
    }

    fn event(&mut self, token: u32) -> Result<(), Fault> {
        let Some(index) = token.checked_sub(1) else {
            // A descriptor may be ready no more.
            return match self.error.read() {
                Ok(_) => Err(Fault::Request("a chain or a ring that the kernel's vhost can't use")),
                Err(_) => Ok(()),
            };
        };
        if let Some(ring) = self.rings.get(index as usize) {
            ring.pass_on();
        }
        Ok(())
    }

    /// The kernel has stopped.
    fn take_back(&mut self, session: &mut Session) {
        let _ = session.unwatch(&self.error);
        for (index, ring) in (0..).zip(&mut self.rings) {
            let Some(mut queue) = ring.lent.take() else { continue };
            let _ = session.unwatch(&ring.call);
            let _ = self.kernel.unset_kick(index);
            if let Ok(next_available) = self.kernel.next_available(index) {
                queue.go_on_at(next_available);
            }
            if ring.call.read().is_ok() {
                queue.ring();
            }
            session.give_back(queue);
        }
        // A fault that the driver is reset for already.
        let _ = self.error.read();
    }
}

/// Where a queue lies and goes on.
fn place(queue: &Queue) -> VhostRing {
    let state = queue.state();
    VhostRing {
        size: state.size,
        descriptors: state.desc_table,
        available: state.avail_ring,
        used: state.used_ring,
        next_available: state.next_avail,
    }
}

impl Ring {
    /// Rings for the kernel.
    fn pass_on(&self) {
        if let (Ok(_), Some(queue)) = (self.call.read(), &self.lent) {
            queue.ring();
        }
    }
}
