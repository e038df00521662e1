//! Config of a vsock device.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{FilePath, Ranged};
use vmm_virtio::DeviceError;

/// A guest's context id: 0 to 2 are the hypervisor's, the loopback's and the host's; the largest number is
/// VMADDR_CID_ANY (vsock(7)).
pub(super) type Cid = Ranged<3, 0xffff_fffe>;

/// A vsock device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The guest's context id, 3 to 4294967294.
    #[serde(default = "first")]
    pub cid: Cid,
    /// The Unix socket at which host programs connect to the guest. For connections from the guest to a port,
    /// a host program listens at this path plus `_` and the port. Not with `vhost`.
    #[serde(default)]
    pub path: Option<FilePath>,
    /// Whether the host's kernel moves the data (vhost-vsock); host programs then use AF_VSOCK sockets.
    #[serde(default)]
    pub vhost: bool,
}

fn first() -> Cid {
    Cid::new(3).expect("it is the first")
}

impl Config {
    /// The Unix socket; `None` with `vhost`.
    pub(super) fn path(&self) -> Result<Option<&FilePath>, DeviceError> {
        match (&self.path, self.vhost) {
            (Some(_), true) => {
                let problem = "conflicts with \"vhost\", which has no Unix sockets: remove one of them";
                Err(DeviceError::config("path", problem))
            }
            (None, false) => {
                let problem =
                    "\"path\" is missing, add that of the Unix socket, such as \"vm.sock\", or set \"vhost\"";
                Err(DeviceError::config("", problem))
            }
            (path, _) => Ok(path.as_ref()),
        }
    }
}
