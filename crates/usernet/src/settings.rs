//! What a network is opened with.

use std::net::SocketAddr;

use rustix::io::Errno;
use thiserror::Error;

use crate::allow::Allow;
use crate::forward::Forward;

/// What the network of one guest is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the guest may reach.
    pub allow: Allow,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Who answers what the guest asks the resolver's address.
    pub resolver: Resolver,
    /// The longest IP packet in bytes, 1280 at least. The larger, the faster: 65520 is what Linux's loopback takes, too.
    pub mtu: u16,
    /// Where frames go until the guest has sent one.
    pub guest_mac: [u8; 6],
    /// Flows at one time, of all kinds together: each takes a descriptor of the host's.
    pub flows: usize,
}

/// Who answers what the guest asks the resolver's address, port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// The first name server of the host's `/etc/resolv.conf`, which is read anew for each flow.
    OfHost,
    /// This one.
    At(SocketAddr),
}

/// The shortest MTU that IPv6 allows (RFC 8200 §5).
pub(crate) const MIN_MTU: u16 = 1280;

/// Why a network can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The MTU is too short for IPv6.
    #[error("an MTU of {0} is less than IPv6 allows: make it 1280 or more")]
    Mtu(u16),
    /// A forwarded port can't be had.
    #[error("forward {forward:?}: can't listen at {address}: {source}: {hint}")]
    Forward {
        /// As it was written.
        forward: String,
        /// The host's address and port.
        address: SocketAddr,
        /// What the host said.
        source: std::io::Error,
        /// What to change.
        hint: String,
    },
    /// The host can't be asked for its routes, which `*` depends on.
    #[error(
        "can't ask for the host's routes, which \"*\" in a rule depends on: {0}: permit netlink sockets (AF_NETLINK) \
         to the monitor, or list addresses instead of \"*\""
    )]
    Routes(std::io::Error),
    /// The host has no epoll instance or timer for us.
    #[error("can't watch sockets: {0}: raise the limit of open files (ulimit -n)")]
    Watch(std::io::Error),
}

impl OpenError {
    pub(crate) fn forward(forward: &Forward, error: Errno) -> Self {
        let address = forward.listen;
        let hint = match error {
            Errno::ADDRINUSE => "choose another port, or stop what listens there".to_owned(),
            Errno::ADDRNOTAVAIL => {
                format!("{} is none of this host's addresses: choose one that is", address.ip())
            }
            Errno::ACCESS | Errno::PERM => {
                format!("port {} is for root: choose one from 1024 up", address.port())
            }
            Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n)".to_owned(),
            _ => "choose another address or port".to_owned(),
        };
        OpenError::Forward { forward: forward.text.clone(), address, source: error.into(), hint }
    }
}
