//! The backend's fields, as far as a config is checked without vmm-usernet. Forwarded ports aren't parsed: the backend is refused.

use std::convert::Infallible;
use std::net::SocketAddr;

/// A forwarded port, unparsed.
#[derive(Debug)]
pub(in crate::net) struct Forward(String);

pub(in crate::net) type ForwardError = Infallible;

impl Forward {
    pub(in crate::net) fn parse(text: &str) -> Result<Self, ForwardError> {
        Ok(Self(text.to_owned()))
    }

    pub(in crate::net) fn host_end(&self) -> String {
        self.0.clone()
    }

    pub(in crate::net) fn host_end_of_all(&self) -> Option<String> {
        None
    }
}

/// The DNS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    At(SocketAddr),
}
