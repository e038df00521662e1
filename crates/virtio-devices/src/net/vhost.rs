//! A card whose frames the host's kernel carries (vhost-net): all pairs' queues are lent to it.

use std::io;

use rustix::io::Errno;
use vmm_virtio::{Fault, FramePort, OpenError, Session, VHOST_TOKENS, VhostError, VhostNet};

use super::Pair;
use super::config::{Backend, Config};

/// Tokens from here on are the kernel's, [`VHOST_TOKENS`] for each pair.
pub(super) const TOKENS: u32 = 1 << 20;

/// The kernel's part of a card: one of its servers for each pair.
pub(super) struct Kernel {
    pairs: Vec<VhostNet>,
}

impl Kernel {
    /// `None` if the config doesn't ask for it.
    pub(super) fn open(config: &Config, ports: &[FramePort]) -> Result<Option<Self>, OpenError> {
        if !config.vhost {
            return Ok(None);
        }
        if ports[0].name().is_none() {
            return Err(no_tap("a socket"));
        }
        let pairs = ports.iter().map(|_| VhostNet::open().map_err(|error| refusal(&error)));
        Ok(Some(Self { pairs: pairs.collect::<Result<_, _>>()? }))
    }

    /// Lends it those pairs that the driver can use.
    pub(super) fn start(&mut self, pairs: &[Pair], session: &mut Session) -> Result<(), Fault> {
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

    /// Takes back what it has.
    pub(super) fn stop(&mut self, session: &mut Session) {
        self.pairs.iter_mut().for_each(|pair| pair.stop(session));
    }
}

/// # Errors
/// The config asks for what the kernel doesn't do.
pub(super) fn check(config: &Config, is_limited: bool) -> Result<(), OpenError> {
    match &config.backend {
        _ if !config.vhost => Ok(()),
        Backend::User => Err(no_tap("a network in the monitor")),
        Backend::Passt(_) => Err(no_tap("a passt")),
        _ if is_limited => {
            Err(OpenError::config("vhost", "the kernel keeps no \"limits\": leave out one of the two"))
        }
        Backend::Tap(_) | Backend::Fd(_) => Ok(()),
    }
}

fn no_tap(backend: &str) -> OpenError {
    let problem = format!("the kernel serves a TAP, and this is {backend}: leave it out, or take a TAP");
    OpenError::config("vhost", problem)
}

/// What the kernel's refusal means, and the command that mends it.
fn refusal(error: &VhostError) -> OpenError {
    // There is a name for it, and no driver.
    let has_none = matches!(Errno::from_io_error(&error.source), Some(Errno::NODEV | Errno::NXIO));
    let problem = match error.source.kind() {
        _ if error.call != "open" => format!("/dev/vhost-net: {error}"),
        io::ErrorKind::PermissionDenied => {
            "/dev/vhost-net isn't open to you: `sudo chown $USER /dev/vhost-net` makes it yours".to_owned()
        }
        kind if kind == io::ErrorKind::NotFound || has_none => {
            "there is no /dev/vhost-net: `sudo modprobe vhost_net` loads the kernel's driver".to_owned()
        }
        _ => format!("/dev/vhost-net can't be opened: {}", error.source),
    };
    OpenError::host("vhost", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: &'static str, errno: Errno) -> String {
        refusal(&VhostError { call, source: errno.into() }).to_string()
    }

    #[test]
    fn refusal_says_which_command_mends_it() {
        let missing =
            ".vhost: there is no /dev/vhost-net: `sudo modprobe vhost_net` loads the kernel's driver";
        assert_eq!(refused("open", Errno::NOENT), missing);
        assert_eq!(refused("open", Errno::NODEV), missing);
        assert_eq!(
            refused("open", Errno::ACCESS),
            ".vhost: /dev/vhost-net isn't open to you: `sudo chown $USER /dev/vhost-net` makes it yours"
        );
        assert_eq!(
            refused("open", Errno::MFILE),
            ".vhost: /dev/vhost-net can't be opened: Too many open files (os error 24)"
        );
        assert_eq!(
            refused("VHOST_SET_OWNER", Errno::NOMEM),
            ".vhost: /dev/vhost-net: VHOST_SET_OWNER: Cannot allocate memory (os error 12)"
        );
    }
}
