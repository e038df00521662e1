//! User-mode network for one guest, without root, TAP or helper process: Ethernet frames on one side,
//! ordinary host sockets on the other.
//!
//! The guest sees a link with a gateway. Its traffic to the outside is terminated here: its TCP connections,
//! datagrams and echo requests are carried by sockets of this process, so to the host and beyond it looks
//! like any program that connects. Nothing is permitted unless a rule of [`Allow`] says so, and what isn't
//! permitted is refused at once.
//!
//! ```text
//!   guest                          UserNet                               host
//!
//!                 +-- services: ARP, NDP, DHCP, echo of the gateway
//!   frames        |
//!  ------> send --+-- rules --- flow by its addresses --+-- TCP: smoltcp -- socket ---> servers
//!                 |             (a table, bounded)      +-- UDP ----------- socket --->
//!                 +-- refused: reset, ICMP              +-- echo ---------- socket --->
//!
//!  <--- receive <---- the next flow in turn that has something     forwarded port <---- clients
//! ```
//!
//! # What the guest sees
//!
//! | address | role |
//! |---|---|
//! | 10.0.2.2, fd76:6d6d::2 | the gateway: answers DHCP and router solicitations, and advertises itself hourly; its ports are those of the host's loopback |
//! | 10.0.2.3, fd76:6d6d::3 | the resolver: port 53 is the host's name server |
//! | 10.0.2.15 | the guest, by DHCP; for IPv6 it chooses an address in fd76:6d6d::/64 itself |
//!
//! # Usage
//!
//! Pass each frame from the guest to [`UserNet::send`], then call [`UserNet::receive`] until there is no
//! frame or the guest has no room. When the descriptor becomes readable, call it again. If the guest had no
//! room, continue as soon as it has some, whatever the descriptor says; there is no need to poll it before.
//! Meanwhile all incoming data stays in the host's sockets. When the guest has ended, [`UserNet::deliver`] passes
//! on what was acknowledged to it.
//!
//! ```
//! use vmm_usernet::{Allow, Resolver, Settings, UserNet};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut net = UserNet::open(Settings {
//!     allow: Allow::parse(&["tcp:*:443".to_owned(), "dns".to_owned()])?,
//!     forwards: Vec::new(),
//!     resolver: Resolver::OfHost,
//!     mtu: 1500,
//!     guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
//!     flows: 1024,
//! })?;
//!
//! // The guest asks who has 10.0.2.2 (RFC 826).
//! let mut question = vec![0xff; 6];
//! question.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
//! question.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
//! net.send(&question);
//!
//! let mut room = vec![0; 1500 + 14];
//! let answer = net.receive(&mut room).expect("the gateway answers");
//! assert_eq!(room[22..28], [0x52, 0x55, 0x0a, 0, 2, 2]);
//! assert_eq!(answer.len, 42);
//! assert!(net.receive(&mut room).is_none());
//! # Ok(())
//! # }
//! ```
//!
//! # Costs and limits
//!
//! There are at most [`Settings::flows`] flows. An active connection buffers up to 256 KiB in each direction;
//! one that has been quiet for a second needs a few hundred bytes (a test ensures that a hundred idle ones
//! take less than 1 MiB). Datagrams are never buffered. Frames generated here, such as resets, wait in a
//! queue of 64 frames. When the table is full, the least recently used datagram flow is replaced. Connections
//! aren't, unless they have been quiet for two hours: a new connection from the guest is reset, and one at a
//! forwarded port waits in the host. Connections from forwarded ports take at most three quarters of the
//! table.
//!
//! # Not supported
//!
//! IP fragments (in either direction; with an MTU of 65520 they are rarely needed), IPv6 extension headers,
//! multicast and broadcast, protocols other than TCP, UDP and echo requests, and TCP urgent data. Echo
//! requests need the host's permission (`net.ipv4.ping_group_range`). Connections from forwarded ports go to
//! 10.0.2.15 and come from the gateway's address. While the guest doesn't have that address, TCP connections
//! are refused: at once if its driver isn't running ([`UserNet::set_driven`]), otherwise after the quarter of
//! a second that the guest has to answer an ARP request.
#![forbid(unsafe_code)]

mod accept;
mod addresses;
mod allow;
mod clouds;
mod control;
mod delivery;
mod flow;
mod forward;
mod host;
mod link;
mod listener;
mod packet;
mod ping;
mod presence;
mod pull_outcome;
mod refusal_log;
mod restore;
mod route;
mod routes;
mod services;
mod settings;
mod shared;
mod system_calls;
mod table;
mod tcp;
mod udp;
mod undelivered;
mod unreachable;
mod usernet;

pub use allow::{Allow, RuleError};
pub use forward::{Forward, ForwardError};
pub use packet::PartialChecksum;
pub use settings::{OpenError, Resolver, Settings};
pub use system_calls::SYSTEM_CALLS;
pub use tcp::OpenTcp;
pub use undelivered::UndeliveredTcp;
pub use usernet::{Frame, UserNet};

#[cfg(test)]
extern crate self as vmm_usernet;
#[cfg(test)]
#[path = "../tests/guest/mod.rs"]
mod guest;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
