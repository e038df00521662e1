//! Settings of a network, and errors from opening it.

use std::net::SocketAddr;

use rustix::io::Errno;
use thiserror::Error;

use crate::allow::Allow;
use crate::forward::Forward;

/// The settings of a guest's network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the guest may reach.
    pub allow: Allow,
    /// Host ports that are forwarded to the guest.
    pub forwards: Vec<Forward>,
    /// The server behind the resolver's address.
    pub resolver: Resolver,
    /// Maximum length of an IP packet in bytes, at least 1280. Larger is faster: Linux's loopback uses 65520
    /// as well.
    pub mtu: u16,
    /// Hardware address to which frames are sent until the guest has sent one.
    pub guest_mac: [u8; 6],
    /// Maximum number of concurrent flows of all kinds; each uses a descriptor.
    pub flows: usize,
}

/// The server behind the resolver's address, port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// The first name server in the host's `/etc/resolv.conf` when the network is opened: a confined process can't read it later.
    OfHost,
    /// A fixed server.
    At(SocketAddr),
}

/// Minimum MTU of IPv6 (RFC 8200 §5).
pub(crate) const MIN_MTU: u16 = 1280;

/// Errors from opening a network.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The MTU is too short for IPv6.
    #[error("an MTU of {0} is less than IPv6 allows: make it 1280 or more")]
    Mtu(u16),
    /// A forwarded port can't be bound.
    #[error("forward {forward:?}: can't listen at {address}: {source}: {hint}")]
    Forward {
        /// As the user wrote it.
        forward: String,
        /// Address and port on the host.
        address: SocketAddr,
        /// Error from the host.
        source: std::io::Error,
        /// What to change.
        hint: String,
    },
    /// The host's routes, on which `*` depends, can't be queried.
    #[error(
        "can't query the host's routes, on which \"*\" in a rule depends: {0}: allow the monitor netlink sockets \
         (AF_NETLINK), or list addresses instead of \"*\""
    )]
    Routes(std::io::Error),
    /// The epoll instance or timer can't be created.
    #[error("can't watch sockets: {0}: raise the limit of open files (ulimit -n)")]
    Watch(std::io::Error),
}

impl OpenError {
    pub(crate) fn forward(forward: &Forward, error: Errno) -> Self {
        let address = forward.listen;
        let hint = match error {
            Errno::ADDRINUSE => "choose another port, or stop what listens there".to_owned(),
            Errno::ADDRNOTAVAIL => {
                format!("{} isn't an address of this host: choose one that is", address.ip())
            }
            Errno::ACCESS | Errno::PERM => {
                format!("port {} requires root: choose one from 1024 up", address.port())
            }
            Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n)".to_owned(),
            _ => "choose another address or port".to_owned(),
        };
        OpenError::Forward { forward: forward.text.clone(), address, source: error.into(), hint }
    }
}
