//! A card whose frames the host's kernel moves (vhost-net): the queues of all pairs are lent to it.

use vmm_hostio::FramePort;
use vmm_virtio::{DeviceError, Fault, Session, VHOST_TOKENS, VhostNet};

use super::config::{Backend, Config};
use super::pair::Pair;
use crate::vhost::refusal;

/// First token of the kernel's part, [`VHOST_TOKENS`] per pair.
pub(super) const TOKENS: u32 = 1 << 20;

/// The kernel's part of a card: one server per pair.
pub(super) struct Kernel {
    pairs: Vec<VhostNet>,
    /// The queues are lent.
    is_serving: bool,
}

impl Kernel {
    /// `None` if the config doesn't request it.
    pub(super) fn open(config: &Config, ports: &[FramePort]) -> Result<Option<Self>, DeviceError> {
        if !config.vhost {
            return Ok(None);
        }
        if ports[0].name().is_none() {
            return Err(no_tap("a socket"));
        }
        let pairs = ports.iter().map(|_| VhostNet::open().map_err(|error| refusal("vhost-net", &error)));
        Ok(Some(Self { pairs: pairs.collect::<Result<_, _>>()?, is_serving: false }))
    }

    /// Lends the queues of the pairs that the driver can use, unless they are lent.
    pub(super) fn start(&mut self, pairs: &[Pair], session: &mut Session) -> Result<(), Fault> {
        if std::mem::replace(&mut self.is_serving, true) {
            return Ok(());
        }
        for ((index, kernel), pair) in self.pairs.iter_mut().enumerate().zip(pairs) {
            let Some(port) = pair.link.port() else { continue };
            kernel.start(port, 2 * index, TOKENS + VHOST_TOKENS * index as u32, session)?;
        }
        Ok(())
    }

    /// Handles an event with a token from [`TOKENS`] on.
    pub(super) fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let token = token - TOKENS;
        let pair = self.pairs.get_mut((token / VHOST_TOKENS) as usize);
        pair.map_or(Ok(()), |pair| pair.event(token % VHOST_TOKENS, session))
    }

    /// Drops references to the guest's memory.
    pub(super) fn forget_guest(&mut self) {
        self.pairs.iter_mut().for_each(VhostNet::forget_guest);
    }

    /// Takes the queues back while the card runs on.
    pub(super) fn release(&mut self, session: &mut Session) {
        self.is_serving = false;
        self.pairs.iter_mut().for_each(|pair| pair.release(session));
    }

    /// Takes lent queues back.
    pub(super) fn stop(&mut self, session: &mut Session) {
        self.is_serving = false;
        self.pairs.iter_mut().for_each(|pair| pair.stop(session));
    }
}

/// # Errors
/// The config requests something that the kernel doesn't support.
pub(super) fn check(config: &Config, is_limited: bool) -> Result<(), DeviceError> {
    match &config.backend {
        _ if !config.vhost => Ok(()),
        Backend::User => Err(no_tap("the user backend")),
        Backend::Passt(_) => Err(no_tap("a passt")),
        _ if is_limited => Err(DeviceError::config(
            "vhost",
            "conflicts with \"limits\", which the kernel doesn't support: remove one of them",
        )),
        Backend::Tap(_) | Backend::Fd(_) => Ok(()),
    }
}

fn no_tap(backend: &str) -> DeviceError {
    let problem = format!("requires a TAP, and this is {backend}: remove it, or use a TAP");
    DeviceError::config("vhost", problem)
}
