//! The device whose data the host's kernel moves (vhost-vsock): host programs use AF_VSOCK sockets, as guest
//! programs do.

use std::io;

use vmm_hostio::VHOST_CALLS;
use vmm_virtio::{ConfigSpace, DeviceError, Fault, Needs, Persistence, Session, VhostVsock, VirtioDevice};

use super::properties::{EVENTQ_SIZE, QUEUE_SIZE, config_space};
use super::reset_event::ResetEvent;
use crate::vhost::refusal;

/// First of the kernel part's tokens, which are the only ones.
const TOKENS: u32 = 0;

/// The device.
pub(super) struct Kernel {
    vhost: VhostVsock,
    cid: u32,
    /// The kernel doesn't serve the event queue. It resets what a guest sends on connections that it doesn't know.
    pub(super) reset_event: ResetEvent,
}

impl Kernel {
    pub(super) fn open(cid: u32) -> Result<Self, DeviceError> {
        let vhost = VhostVsock::open(cid).map_err(|error| match error.source.kind() {
            io::ErrorKind::AddrInUse => {
                let problem = format!("{cid} is in use by another guest on this host, choose another");
                DeviceError::host("cid", problem)
            }
            _ => refusal("vhost-vsock", &error),
        })?;
        Ok(Self { vhost, cid, reset_event: ResetEvent::None })
    }
}

impl VirtioDevice for Kernel {
    fn needs(&self) -> Needs {
        Needs::calls(&[VHOST_CALLS])
    }

    fn features(&self) -> u64 {
        self.vhost.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE, QUEUE_SIZE, EVENTQ_SIZE]
    }

    fn config_space(&self) -> ConfigSpace {
        config_space(self.cid)
    }

    fn note(&self) -> Option<String> {
        Some(format!("context id {}, by vhost", self.cid))
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.reset_event.proceed(session)?;
        self.vhost.start(TOKENS, session)
    }

    /// Buffers for events stay in the queue, unless there is one; the other queues are lent to the kernel.
    fn process(&mut self, _queue: usize, session: &mut Session) -> Result<(), Fault> {
        self.reset_event.proceed(session)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.vhost.event(token - TOKENS, session)
    }

    fn stop(&mut self, session: &mut Session) {
        self.vhost.stop(session);
    }

    fn reset(&mut self) {
        self.reset_event = ResetEvent::None;
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn power_cycle(&mut self) {
        self.reset();
        self.vhost.forget_guest();
    }
}
