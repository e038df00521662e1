//! What a config says of a vsock device.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{FilePath, Ranged};
use vmm_virtio::DeviceError;

/// A context id that is a guest's: 0 to 2 are the hypervisor's, the loopback's and the host's, and the last of all is
/// VMADDR_CID_ANY (vsock(7)).
pub(super) type Cid = Ranged<3, 0xffff_fffe>;

/// A vsock device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The guest's context id, 3 to 4294967294.
    #[serde(default = "first")]
    pub cid: Cid,
    /// The unix socket at which the host connects to the guest; behind it, with `_` and a port, those that the guest
    /// connects to. Not with `vhost`.
    #[serde(default)]
    pub path: Option<FilePath>,
    /// Whether the host's kernel carries the data (vhost-vsock): the host's programs have AF_VSOCK sockets then.
    #[serde(default)]
    pub vhost: bool,
}

fn first() -> Cid {
    Cid::new(3).expect("it is the first")
}

impl Config {
    /// The unix socket; `None` with `vhost`.
    pub(super) fn path(&self) -> Result<Option<&FilePath>, DeviceError> {
        match (&self.path, self.vhost) {
            (Some(_), true) => {
                let problem = "the kernel's vsock has no unix sockets: leave out this, or \"vhost\"";
                Err(DeviceError::config("path", problem))
            }
            (None, false) => {
                let problem = "\"path\" is missing, give that of the unix socket, such as \"vm.sock\", or set \"vhost\"";
                Err(DeviceError::config("", problem))
            }
            (path, _) => Ok(path.as_ref()),
        }
    }
}
