//! The values of the backend's fields.

pub(in crate::net) use vmm_usernet::{Forward, ForwardError, Resolver};
