//! What a config says of a network card.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{FilePath, Ranged, choice, present};

use crate::limits::Limits;

/// A network card.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What its frames go through on the host.
    #[serde(deserialize_with = "choice")]
    pub backend: Backend,
    /// What the guest may reach by the user backend: "all", or rules such as "tcp:*:443"; if absent, nothing.
    #[serde(default, deserialize_with = "present")]
    pub allow: Option<Rules>,
    /// Ports of the host that lead to the guest by the user backend, such as "127.0.0.1:8080:80".
    #[serde(default, deserialize_with = "present")]
    pub forward: Option<Vec<String>>,
    /// The server of names that the user backend asks, such as "192.0.2.1"; if absent, the host's.
    #[serde(default, deserialize_with = "present")]
    pub dns: Option<String>,
    /// Its address, such as "52:54:00:12:34:56"; if absent, one that is always the same for this id and TAP.
    #[serde(default, deserialize_with = "present")]
    pub mac: Option<String>,
    /// The longest packet that the guest shall send, 68 to 65535 bytes; if absent, the guest decides, and the user
    /// backend says 65520.
    #[serde(default, deserialize_with = "present")]
    pub mtu: Option<Ranged<68, 65535>>,
    /// Pairs of queues, at most one for each vCPU; if absent, as many as that, 16 at most, where the backend can have several.
    #[serde(default, deserialize_with = "present")]
    pub queues: Option<Ranged<1, 16>>,
    /// Whether the host's kernel carries the frames (vhost-net), between the guest's memory and a TAP.
    #[serde(default)]
    pub vhost: bool,
    /// What the guest may use, both directions together; a request is a frame.
    #[serde(default)]
    pub limits: Limits,
}

/// What a guest may reach by the user backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"all\" or a list of rules such as \"tcp:*:443\"")]
pub enum Rules {
    /// Everything.
    All(All),
    /// What one of these permits.
    List(Vec<String>),
}

/// The word for everything.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// It.
    All,
}

/// What the frames go through on the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The TAP of this name, which is made if there is none and the user may.
    Tap(String),
    /// A network in the monitor, by ordinary sockets of the host: without any rights, and closed but for "allow".
    User,
    /// The unix socket of a passt: a network without any rights.
    Passt(FilePath),
    /// A descriptor that the monitor inherits: a TAP, or a socket with a frame in each packet.
    Fd(Ranged<0, 2147483647>),
}
