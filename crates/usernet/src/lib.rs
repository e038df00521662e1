//! A network for one guest without root, TAP or helper: Ethernet frames go in, ordinary sockets of the host come out.
#![forbid(unsafe_code)]

mod accept;
mod addresses;
mod allow;
mod control;
mod flow;
mod forward;
mod host;
mod link;
mod listener;
mod packet;
mod ping;
mod refused;
mod route;
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
