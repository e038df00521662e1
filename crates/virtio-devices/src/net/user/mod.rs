//! A network stack in the monitor: the guest's connections are terminated here and continued by ordinary host
//! sockets (vmm-usernet). no_user is in its place in a build without the feature `usernet`.

mod fields;
mod link;

pub(super) use self::fields::{Forward, ForwardError, Resolver};
pub(super) use self::link::open;
