//! Config of a network card.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use vmm_config::{FilePath, Ranged, list, parsed, word_or_list};

use super::mac::Mac;
use super::resolver::resolver;
use super::user::{Forward, ForwardError, Resolver};
use crate::limits::Limits;

/// Maximum length of an interface name on Linux in bytes (IFNAMSIZ without its NUL).
const NAME_LEN: usize = 15;

/// A network card.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where its frames go on the host.
    pub backend: Backend,
    /// What the guest may reach through the user backend: "all", or rules such as "tcp:*:443"; default:
    /// nothing.
    #[serde(default)]
    #[schemars(with = "Option<RulesSchema>")]
    pub allow: Option<Rules>,
    /// Host ports forwarded to the guest by the user backend, such as "127.0.0.1:8080:80".
    #[serde(default, deserialize_with = "forwards")]
    #[schemars(with = "Option<Vec<String>>")]
    pub forward: Option<Vec<ForwardText>>,
    /// DNS server for the user backend, such as "192.0.2.1"; default: the host's.
    #[serde(default, deserialize_with = "dns")]
    #[schemars(with = "Option<String>")]
    pub dns: Option<Resolver>,
    /// MAC address, such as "52:54:00:12:34:56"; default: derived from the id and the TAP's name.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// MTU for the guest, 68 to 65535 bytes; default: the guest's choice, or 65520 with the user backend.
    #[serde(default)]
    pub mtu: Option<Ranged<68, 65535>>,
    /// Number of queue pairs, at most one per vCPU; default: one per vCPU, up to 16, if the backend supports
    /// several.
    #[serde(default)]
    pub queues: Option<Ranged<1, 16>>,
    /// Whether the host's kernel moves the frames (vhost-net) between the guest's memory and a TAP.
    #[serde(default)]
    pub vhost: bool,
    /// Rate limits for both directions together; an operation is a frame.
    #[serde(default)]
    pub limits: Limits,
}

/// What a guest may reach through the user backend.
#[derive(Debug)]
pub enum Rules {
    /// Everything.
    All,
    /// Whatever one of these rules permits.
    List(Vec<Rule>),
}

/// Schema of [`Rules`].
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Rules")]
#[expect(dead_code, reason = "only its schema is of use")]
enum RulesSchema {
    /// Everything.
    All(All),
    /// Whatever one of these rules permits.
    List(Vec<String>),
}

/// The word "all".
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is of use")]
enum All {
    /// Everything.
    All,
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = word_or_list(deserializer, "all", "\"all\" or a list of rules such as [\"tcp:*:443\"]")?;
        Ok(rules.map_or(Self::All, Self::List))
    }
}

/// An unparsed rule. The parser of the whole list reports which one is invalid.
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

/// A forwarded port.
#[derive(Debug)]
pub struct ForwardText(pub(super) Forward);

impl FromStr for ForwardText {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        Forward::parse(text).map(Self)
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

/// A DNS server.
struct Server(Resolver);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        resolver(text).map(Self)
    }
}

/// Name of a network interface.
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
                "{name:?} isn't a valid interface name: use 1 to {NAME_LEN} characters, none of \"/%:\""
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

/// Where the frames go on the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", expecting = "\"user\" or an object such as {\"tap\": \"tap0\"}")]
pub enum Backend {
    /// The TAP with this name, which is created if it doesn't exist and the user may.
    Tap(#[schemars(with = "String")] InterfaceName),
    /// A network stack in the monitor on top of ordinary host sockets: needs no privileges, and permits only
    /// what "allow" lists.
    User,
    /// The Unix socket of a passt, which needs no privileges.
    Passt(FilePath),
    /// An inherited file descriptor: a TAP, or a packet socket with a frame per packet.
    Fd(Ranged<0, 2147483647>),
}
