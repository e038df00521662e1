//! In place of user in a build without the feature `usernet`: no network stack can be created.

mod fields;

use vmm_virtio::DeviceError;

pub(super) use self::fields::{Forward, ForwardError, Resolver};
use super::config::Config;
use super::link::Link;
use super::mac::Mac;
use crate::left_out::left_out;

/// # Errors
/// Always.
pub(super) fn open(_config: &Config, _mac: Mac) -> Result<(Box<dyn Link>, u16), DeviceError> {
    Err(left_out("backend", "usernet", "use a TAP or passt"))
}
