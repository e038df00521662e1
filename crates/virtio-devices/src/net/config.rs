//! What a config says of a network card.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use vmm_config::{FilePath, Ranged, list, parsed, word_or_list};
use vmm_usernet::{Forward, ForwardError, Resolver};

use super::mac::Mac;
use super::resolver::resolver;
use crate::limits::Limits;

/// What Linux calls an interface, at most, in bytes (IFNAMSIZ without its NUL).
const NAME_LEN: usize = 15;

/// A network card.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What its frames go through on the host.
    pub backend: Backend,
    /// What the guest may reach by the user backend: "all", or rules such as "tcp:*:443"; if absent, nothing.
    #[serde(default)]
    #[schemars(with = "Option<RulesSchema>")]
    pub allow: Option<Rules>,
    /// Ports of the host that lead to the guest by the user backend, such as "127.0.0.1:8080:80".
    #[serde(default, deserialize_with = "forwards")]
    #[schemars(with = "Option<Vec<String>>")]
    pub forward: Option<Vec<ForwardText>>,
    /// The server of names that the user backend asks, such as "192.0.2.1"; if absent, the host's.
    #[serde(default, deserialize_with = "dns")]
    #[schemars(with = "Option<String>")]
    pub dns: Option<Resolver>,
    /// Its address, such as "52:54:00:12:34:56"; if absent, one that is always the same for this id and TAP.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// The longest packet that the guest shall send, 68 to 65535 bytes; if absent, the guest decides, and the user
    /// backend says 65520.
    #[serde(default)]
    pub mtu: Option<Ranged<68, 65535>>,
    /// Pairs of queues, at most one for each vCPU; if absent, as many as that, 16 at most, where the backend can have several.
    #[serde(default)]
    pub queues: Option<Ranged<1, 16>>,
    /// Whether the host's kernel carries the frames (vhost-net), between the guest's memory and a TAP.
    #[serde(default)]
    pub vhost: bool,
    /// What the guest may use, both directions together; a request is a frame.
    #[serde(default)]
    pub limits: Limits,
}

/// What a guest may reach by the user backend.
#[derive(Debug)]
pub enum Rules {
    /// Everything.
    All,
    /// What one of these permits.
    List(Vec<Rule>),
}

/// How [`Rules`] are written.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Rules")]
#[expect(dead_code, reason = "only its schema is of use")]
enum RulesSchema {
    /// Everything.
    All(All),
    /// What one of these permits.
    List(Vec<String>),
}

/// The word for everything.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is of use")]
enum All {
    /// It.
    All,
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = word_or_list(deserializer, "all", "\"all\" or a list of rules such as [\"tcp:*:443\"]")?;
        Ok(rules.map_or(Self::All, Self::List))
    }
}

/// A rule as it was written. Which one of several is wrong, their parser says.
#[derive(Debug)]
pub struct Rule(pub String);

impl FromStr for Rule {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a rule such as \"tcp:*:443\"")
    }
}

/// A port of the host, with its text.
#[derive(Debug)]
pub struct ForwardText {
    pub(super) forward: Forward,
    pub(super) text: String,
}

impl FromStr for ForwardText {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        Ok(Self { forward: Forward::parse(text)?, text: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for ForwardText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a forwarded port such as \"8080:80\"")
    }
}

fn forwards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<ForwardText>>, D::Error> {
    list(deserializer, "a list of forwarded ports such as [\"8080:80\"]").map(Some)
}

fn dns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Resolver>, D::Error> {
    let Server(address) = parsed(deserializer, "a server's address such as \"192.0.2.1\"")?;
    Ok(Some(address))
}

/// A name server.
struct Server(Resolver);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        resolver(text).map(Self)
    }
}

/// The name of a network interface.
#[derive(Debug)]
pub struct InterfaceName(String);

impl InterfaceName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // With a % the kernel would choose a number (Linux, net/core/dev.c, dev_alloc_name).
        let is_bad = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'/' | b'%' | b':');
        let (is_empty, is_long) = (name.is_empty(), name.len() > NAME_LEN);
        if is_empty || is_long || name.bytes().any(is_bad) || matches!(name, "." | "..") {
            return Err(format!(
                "{name:?} is no interface's name: 1 to {NAME_LEN} characters, none of \"/%:\""
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a TAP's name such as \"tap0\"")
    }
}

/// What the frames go through on the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", expecting = "\"user\" or an object such as {\"tap\": \"tap0\"}")]
pub enum Backend {
    /// The TAP of this name, which is made if there is none and the user may.
    Tap(#[schemars(with = "String")] InterfaceName),
    /// A network in the monitor, by ordinary sockets of the host: without any rights, and closed but for "allow".
    User,
    /// The unix socket of a passt: a network without any rights.
    Passt(FilePath),
    /// A descriptor that the monitor inherits: a TAP, or a socket with a frame in each packet.
    Fd(Ranged<0, 2147483647>),
}
