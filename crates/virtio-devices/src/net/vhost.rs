//! A card whose frames the host's kernel carries (vhost-net): all pairs' queues are lent to it.

use vmm_hostio::FramePort;
use vmm_virtio::{DeviceError, Fault, Session, VHOST_TOKENS, VhostNet};

use super::config::{Backend, Config};
use super::pair::Pair;
use crate::vhost::refusal;

/// Tokens from here on are the kernel's, [`VHOST_TOKENS`] for each pair.
pub(super) const TOKENS: u32 = 1 << 20;

/// The kernel's part of a card: one of its servers for each pair.
pub(super) struct Kernel {
    pairs: Vec<VhostNet>,
    /// It has the queues.
    is_serving: bool,
}

impl Kernel {
    /// `None` if the config doesn't ask for it.
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

    /// Lends it those pairs that the driver can use, unless it has them.
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

    /// An event with a token from [`TOKENS`] on.
    pub(super) fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let token = token - TOKENS;
        let pair = self.pairs.get_mut((token / VHOST_TOKENS) as usize);
        pair.map_or(Ok(()), |pair| pair.event(token % VHOST_TOKENS, session))
    }

    /// The guest is no more.
    pub(super) fn forget_guest(&mut self) {
        self.pairs.iter_mut().for_each(VhostNet::forget_guest);
    }

    /// Takes back what it has.
    pub(super) fn stop(&mut self, session: &mut Session) {
        self.is_serving = false;
        self.pairs.iter_mut().for_each(|pair| pair.stop(session));
    }
}

/// # Errors
/// The config asks for what the kernel doesn't do.
pub(super) fn check(config: &Config, is_limited: bool) -> Result<(), DeviceError> {
    match &config.backend {
        _ if !config.vhost => Ok(()),
        Backend::User => Err(no_tap("a network in the monitor")),
        Backend::Passt(_) => Err(no_tap("a passt")),
        _ if is_limited => {
            Err(DeviceError::config("vhost", "the kernel keeps no \"limits\": leave out one of the two"))
        }
        Backend::Tap(_) | Backend::Fd(_) => Ok(()),
    }
}

fn no_tap(backend: &str) -> DeviceError {
    let problem = format!("the kernel serves a TAP, and this is {backend}: leave it out, or take a TAP");
    DeviceError::config("vhost", problem)
}
