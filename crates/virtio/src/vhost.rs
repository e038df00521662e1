//! Queues served by the host's kernel (vhost): a device lends them and gets them back when it stops.
//!
//! ```text
//!  vCPU --notification, an eventfd that KVM writes--> kernel: chains <--> a TAP's queue, or a host's sockets
//!  vCPU <-interrupt--------------eventfd (call)---------+   PCI: an irqfd
//!  vCPU <-interrupt-- vq-<id> <--eventfd (call)---------+   MMIO
//!                     vq-<id> <--eventfd (error): a chain or a ring that the kernel can't use
//! ```
//!
//! With MMIO, interrupts pass through the device's thread because drivers read their cause from InterruptStatus first. Those that
//! don't aren't counted.

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_bus::EventFd;
use vmm_hostio::{FramePort, Vhost, VhostError, VhostRing};

use crate::{Fault, Queue, Session};

/// virtio 1.2 §5.10.3.
const VIRTIO_VSOCK_F_SEQPACKET: u32 = 1;
/// Ring features that the transport offers for every device.
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

impl From<VhostError> for Fault {
    fn from(error: VhostError) -> Self {
        Self::Refused { call: error.call, errno: error.source.raw_os_error().unwrap_or(0) }
    }
}

/// Number of consecutive tokens that a [`VhostNet`] or [`VhostVsock`] uses.
pub const VHOST_TOKENS: u32 = 1 + RINGS as u32;
/// Queues of each server: one from the host, one to it.
const RINGS: usize = 2;

/// A queue pair of a network card, served by the kernel's /dev/vhost-net, which moves frames between it and a
/// TAP.
#[derive(Debug)]
pub struct VhostNet(Server);

impl VhostNet {
    /// Opens /dev/vhost-net.
    ///
    /// # Errors
    /// /dev/vhost-net doesn't exist, isn't accessible, or the kernel is too old.
    pub fn open() -> Result<Self, VhostError> {
        Server::open("/dev/vhost-net", RING_FEATURES | 1 << VIRTIO_NET_F_MRG_RXBUF, 0).map(Self)
    }

    /// Lends the queues `receive` and `receive + 1`, where set up by the driver, to the kernel until
    /// [`stop`](Self::stop). Events of [`VHOST_TOKENS`] tokens from `token` on must be passed to
    /// [`event`](Self::event).
    ///
    /// # Errors
    /// The kernel refuses, or a ring spans two regions of RAM. No queue is lent then.
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

    /// Handles an event; `token` is relative to that of [`start`](Self::start).
    ///
    /// # Errors
    /// The kernel found a violation by the driver; it has stopped serving the queues.
    pub fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.0.event(token).inspect_err(|_| self.stop(session))
    }

    /// Takes lent queues back. On return the kernel no longer accesses them.
    pub fn stop(&mut self, session: &mut Session) {
        for ring in self.0.rings() {
            // It fails only for a ring that doesn't exist.
            let _ = self.0.kernel.set_backend(ring, None);
        }
        self.0.take_back(session);
    }

    /// Takes the queues back while the device runs on, which is notified of them again. It should look at them once: what came
    /// before is notified to nobody.
    pub fn release(&mut self, session: &mut Session) {
        let queues: Vec<usize> =
            self.0.rings.iter().filter_map(|ring| Some(ring.lent.as_ref()?.index())).collect();
        self.stop(session);
        queues.into_iter().for_each(|queue| session.listen(queue));
    }

    /// Drops the reference to the guest's memory, before another guest uses the device.
    pub fn forget_guest(&mut self) {
        self.0.kernel.forget_memory();
    }
}

/// The queues of a socket device, served by the kernel's /dev/vhost-vsock, which connects them to AF_VSOCK
/// sockets.
#[derive(Debug)]
pub struct VhostVsock(Server);

impl VhostVsock {
    /// Opens /dev/vhost-vsock for a guest with this CID.
    ///
    /// # Errors
    /// /dev/vhost-vsock doesn't exist, isn't accessible, or the kernel is too old.
    /// [`AddrInUse`](std::io::ErrorKind::AddrInUse) if another guest has the CID.
    pub fn open(cid: u32) -> Result<Self, VhostError> {
        let server = Server::open("/dev/vhost-vsock", RING_FEATURES, 1 << VIRTIO_VSOCK_F_SEQPACKET)?;
        server.kernel.set_guest_cid(cid.into())?;
        Ok(Self(server))
    }

    /// The device-specific features that the kernel supports.
    pub fn features(&self) -> u64 {
        self.0.features & !RING_FEATURES
    }

    /// Lends the queues 0 and 1 to the kernel until [`stop`](Self::stop), if the driver set up both. Tokens
    /// are as in [`VhostNet::start`].
    ///
    /// # Errors
    /// As for [`VhostNet::start`].
    pub fn start(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let started = self.0.lend(0, token, session).and_then(|()| {
            // The kernel serves both or none: running with one, it would use stale state for the other.
            let has_both = self.0.rings().count() == RINGS;
            if has_both { Ok(self.0.kernel.set_running(true)?) } else { Ok(()) }
        });
        self.0.kick();
        started.inspect_err(|_| self.stop(session))
    }

    /// Handles an event, as [`VhostNet::event`] does.
    ///
    /// # Errors
    /// As for [`VhostNet::event`].
    pub fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.0.event(token).inspect_err(|_| self.stop(session))
    }

    /// Takes lent queues back, as [`VhostNet::stop`] does.
    pub fn stop(&mut self, session: &mut Session) {
        // It fails only if the device isn't owned by this process.
        let _ = self.0.kernel.set_running(false);
        self.0.take_back(session);
    }

    /// Drops the reference to the guest's memory, as [`VhostNet::forget_guest`] does.
    pub fn forget_guest(&mut self) {
        self.0.kernel.forget_memory();
    }
}

/// A vhost device and the queues that it serves.
#[derive(Debug)]
struct Server {
    kernel: Vhost,
    /// Features that the kernel may use, as bits.
    features: u64,
    rings: [Ring; RINGS],
    /// Written by the kernel when it can't continue with a ring.
    error: EventFd,
}

/// A ring of the vhost device.
#[derive(Debug)]
struct Ring {
    /// Written by the kernel when chains were used and the driver wants an interrupt, unless the queue has a
    /// [line](crate::Interrupt::line).
    call: EventFd,
    /// The queue, while the kernel serves it.
    lent: Option<Queue>,
}

impl Server {
    /// The kernel must support the features `needed`; those in `wanted` are optional.
    fn open(path: &'static str, needed: u64, wanted: u64) -> Result<Self, VhostError> {
        let kernel = Vhost::open(path)?;
        let features = kernel.features()? & (needed | wanted);
        if features & needed != needed {
            let source = std::io::ErrorKind::Unsupported.into();
            return Err(VhostError { call: "VHOST_GET_FEATURES", source });
        }
        let event = || {
            let event = EventFd::new();
            event.map_err(|source| VhostError { call: "eventfd", source })
        };
        let ring = || Ok(Ring { call: event()?, lent: None });
        Ok(Self { kernel, features, rings: [ring()?, ring()?], error: event()? })
    }

    /// Indices of the rings that the kernel serves.
    fn rings(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.rings).filter(|(_, ring)| ring.lent.is_some()).map(|(index, _)| index)
    }

    /// Configures the kernel's rings with the queue `first` and the next one, but doesn't start them.
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
            // Pending interrupts of an earlier driver are dropped.
            let _ = ring.call.read();
            let line = lent.line();
            if line.is_none() {
                let watched = session.watch(&ring.call, token + 1 + index);
                watched.map_err(|source| VhostError { call: "epoll_ctl", source })?;
            }
            let call = line.as_deref().unwrap_or(&ring.call);
            self.kernel.set_events(index, lent.kick(), call, &self.error)?;
        }
        Ok(())
    }

    /// Makes the kernel look for chains that were added while nothing was watching; it only reacts to a
    /// write.
    fn kick(&self) {
        for queue in self.rings.iter().filter_map(|ring| ring.lent.as_ref()) {
            // Non-blocking; if the counter is at its maximum the kernel is woken as well.
            let _ = queue.kick().write(1);
        }
    }

    fn event(&mut self, token: u32) -> Result<(), Fault> {
        let Some(index) = token.checked_sub(1) else {
            // A descriptor may no longer be ready.
            return match self.error.read() {
                Ok(_) => Err(Fault::Request("the kernel's vhost can't use a chain or a ring")),
                Err(_) => Ok(()),
            };
        };
        if let Some(ring) = self.rings.get(index as usize) {
            ring.forward_interrupt();
        }
        Ok(())
    }

    /// Takes the queues back from the kernel, which has stopped.
    fn take_back(&mut self, session: &mut Session) {
        let _ = session.unwatch(&self.error);
        for (index, ring) in (0..).zip(&mut self.rings) {
            let Some(mut queue) = ring.lent.take() else { continue };
            let _ = session.unwatch(&ring.call);
            let _ = self.kernel.unset_kick(index);
            if let Ok(next_available) = self.kernel.next_available(index) {
                queue.continue_at(next_available);
            }
            if ring.call.read().is_ok() {
                queue.interrupt_driver();
            }
            session.give_back(queue);
        }
        // The driver is being reset for such a fault already.
        let _ = self.error.read();
    }
}

/// The addresses of a queue, and where it continues.
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
    /// Passes the kernel's interrupt on to the driver.
    fn forward_interrupt(&self) {
        if let (Ok(_), Some(queue)) = (self.call.read(), &self.lent) {
            queue.interrupt_driver();
        }
    }
}
