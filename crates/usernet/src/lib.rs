//! A network for one guest without root, TAP or helper: Ethernet frames go in, ordinary sockets of the host come out.
//!
//! The guest sees a link with a gateway on it. What it sends to the world ends here: its TCP connections, datagrams and
//! echo requests are carried on by sockets of this process, so that the host and everybody beyond sees a program that
//! connects, as any other. Nothing is permitted unless a rule of [`Allow`] says so, and what isn't is refused at once.
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
//! | address | is |
//! |---|---|
//! | 10.0.2.2, fd76:6d6d::2 | the gateway, which answers DHCP and router solicitations, and advertises itself each hour; its ports are those of the host's loopback |
//! | 10.0.2.3, fd76:6d6d::3 | the resolver: port 53 is the host's name server |
//! | 10.0.2.15 | the guest, by DHCP; by IPv6 it takes an address of fd76:6d6d::/64 itself |
//!
//! # How it is used
//!
//! Hand each frame of the guest's to [`UserNet::send`], then take frames with [`UserNet::receive`] until there is none, or
//! the guest has no room. When the descriptor is readable, take frames again. Whoever stops for want of room goes on when
//! there is some, whatever the descriptor says, and needn't look at it before: all that comes meanwhile waits in the
//! host's sockets.
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
//! # What it costs, and bounds
//!
//! There are at most [`Settings::flows`] flows. A connection in use holds up to 256 KiB each way; one that has been quiet
//! for a second holds a few hundred bytes (a test measures that a hundred idle ones cost less than 1 MiB). Datagrams are
//! never held. Answers of our own, such as resets, wait in a queue of 64 frames. When the table is full, the flow of
//! datagrams that was used least gives way; connections don't, unless they were quiet for two hours: a new one of the
//! guest's is reset, and one at a forwarded port waits in the host. Those of forwarded ports take three quarters of the
//! table at most.
//!
//! # What it doesn't carry
//!
//! IP fragments (both ways; with an MTU of 65520, the default of who uses this, there is hardly a need), IPv6 extension
//! headers, multicast and broadcast, protocols other than TCP, UDP and echo requests, and TCP's urgent data. Echo requests
//! need the host's permission (`net.ipv4.ping_group_range`). Connections from forwarded ports come to 10.0.2.15, from the
//! gateway's address. While the guest hasn't that address, connections of TCP are refused: at once if its driver doesn't run
//! ([`UserNet::set_driven`]), else after the quarter of a second that the guest has to answer an ARP request for it.
#![forbid(unsafe_code)]

mod accept;
mod addresses;
mod allow;
mod clouds;
mod control;
mod flow;
mod forward;
mod host;
mod link;
mod listener;
mod packet;
mod ping;
mod presence;
mod pulled;
mod refused;
mod route;
mod routes;
mod services;
mod settings;
mod shared;
mod table;
mod tcp;
mod udp;
mod unreachable;
mod usernet;

pub use allow::{Allow, RuleError};
pub use forward::{Forward, ForwardError};
pub use packet::PartialChecksum;
pub use settings::{OpenError, Resolver, Settings};
pub use usernet::{Frame, UserNet};

#[cfg(test)]
extern crate self as vmm_usernet;
#[cfg(test)]
#[path = "../tests/guest/mod.rs"]
mod guest;
