//! What a config says of a vsock device.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{FilePath, present};
use vmm_virtio::OpenError;

/// The first context id that is a guest's: 0 to 2 are the hypervisor's, the loopback's and the host's (vsock(7)).
const CID_MIN: u32 = 3;
/// The last one: what follows is VMADDR_CID_ANY.
const CID_MAX: u32 = u32::MAX - 1;

/// A vsock device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The guest's context id, 3 to 4294967294.
    #[serde(default = "first")]
    pub cid: u32,
    /// The unix socket at which the host connects to the guest; behind it, with `_` and a port, those that the guest
    /// connects to. Not with `vhost`.
    #[serde(default, deserialize_with = "present")]
    pub path: Option<FilePath>,
    /// Whether the host's kernel carries the data (vhost-vsock): the host's programs have AF_VSOCK sockets then.
    #[serde(default)]
    pub vhost: bool,
}

fn first() -> u32 {
    CID_MIN
}

impl Config {
    /// The context id, which is one.
    pub(super) fn cid(&self) -> Result<u32, OpenError> {
        let Self { cid, .. } = self;
        if !(CID_MIN..=CID_MAX).contains(cid) {
            let problem = format!("{cid} is no guest's context id, those are {CID_MIN} to {CID_MAX}");
            return Err(OpenError::config("cid", problem));
        }
        Ok(*cid)
    }

    /// The unix socket; `None` with `vhost`.
    pub(super) fn path(&self) -> Result<Option<&FilePath>, OpenError> {
        let wrong = |problem: &str| Err(OpenError::config("path", problem));
        match (&self.path, self.vhost) {
            (Some(_), true) => wrong("the kernel's vsock has no unix sockets: leave out this, or \"vhost\""),
            (None, false) => wrong("is missing: it names the unix socket, unless \"vhost\" is true"),
            (path, _) => Ok(path.as_ref()),
        }
    }
}
