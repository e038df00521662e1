//! How the monitor confines itself.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess},
};

use crate::{
    strict::{self, Key, Reader, ShallowValue},
    text::{expected, hint},
    value_error::ValueError,
};

/// How the monitor confines itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// As far as the host allows.
    #[default]
    On,
    /// Completely, or it doesn't start.
    Required,
    /// Not at all.
    Off,
    /// As far as the host allows, with filters that do something else than to end the monitor.
    Seccomp(SeccompAction),
}

/// What happens when the monitor makes a system call that its filters don't allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(
    description = "What happens at a system call that the filters don't allow: it is logged and carried out."
)]
pub enum SeccompAction {
    /// The kernel logs the call, and carries it out.
    Log,
}

/// Names without a value.
const PLAIN: [&str; 3] = ["on", "required", "off"];
/// The name with a value.
const WITH_VALUE: &str = "seccomp";
/// Its only value.
const LOG: &str = "log";
/// Its notation in JSON.
const SECCOMP_LOG: &str = "{\"seccomp\": \"log\"}";
/// The names on the command line.
const FLAG: [&str; 4] = ["on", "required", "off", LOG];

impl Sandbox {
    fn plain(name: &str) -> Option<Sandbox> {
        match name {
            "on" => Some(Sandbox::On),
            "required" => Some(Sandbox::Required),
            "off" => Some(Sandbox::Off),
            _ => None,
        }
    }

    /// The notation in JSON.
    pub(crate) fn json(self) -> String {
        match self {
            Sandbox::Seccomp(SeccompAction::Log) => SECCOMP_LOG.to_owned(),
            plain => format!("\"{plain}\""),
        }
    }
}

/// The command line's notation: `on`, `required`, `off` or `log`.
impl FromStr for Sandbox {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Sandbox, ValueError> {
        match text {
            LOG => Ok(Sandbox::Seccomp(SeccompAction::Log)),
            name => Sandbox::plain(name).ok_or_else(|| unknown(name, hint(name, &FLAG))),
        }
    }
}

fn unknown(name: &str, hint: String) -> ValueError {
    ValueError::UnknownName { what: "value", name: name.to_owned(), hint }
}

/// As on the command line.
impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sandbox::On => "on",
            Sandbox::Required => "required",
            Sandbox::Off => "off",
            Sandbox::Seccomp(SeccompAction::Log) => LOG,
        })
    }
}

impl<'de> Deserialize<'de> for Sandbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sandbox, D::Error> {
        strict::read(deserializer, SandboxReader)
    }
}

/// A name, or an object with one member.
struct SandboxReader;

impl<'de> Reader<'de> for SandboxReader {
    type Value = Sandbox;

    fn scalar(self, found: ShallowValue<'_>) -> Result<Sandbox, ValueError> {
        match found {
            ShallowValue::Text(name) => Sandbox::plain(name).ok_or_else(|| {
                let near = hint(name, &PLAIN);
                let all = format!("{} or {SECCOMP_LOG}", expected(&PLAIN));
                unknown(name, if near.starts_with("did") { near } else { all })
            }),
            other => Err(other.instead_of(&format!("one of \"on\", \"required\", \"off\" or {SECCOMP_LOG}"))),
        }
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Sandbox, A::Error> {
        let mut seen = Vec::new();
        let mut next =
            |map: &mut A| map.next_key_seed(Key { names: &[WITH_VALUE], beside: &[], seen: &mut seen });
        if next(&mut map)?.is_none() {
            let found = "an empty object".to_owned();
            return Err(A::Error::custom(ValueError::WrongType { expected: SECCOMP_LOG.to_owned(), found }));
        }
        let action = map.next_value()?;
        // There is one name, so a second member is unknown or given twice.
        next(&mut map)?;
        Ok(Sandbox::Seccomp(action))
    }
}

impl FromStr for SeccompAction {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<SeccompAction, ValueError> {
        match text {
            LOG => Ok(SeccompAction::Log),
            name => Err(ValueError::UnknownName {
                what: "action",
                name: name.to_owned(),
                hint: hint(name, &[LOG]),
            }),
        }
    }
}

impl<'de> Deserialize<'de> for SeccompAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SeccompAction, D::Error> {
        strict::text(deserializer, "\"log\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> Result<Sandbox, String> {
        text.parse::<Sandbox>().map_err(|error| error.to_string())
    }

    #[test]
    fn sandbox_flag_every_form_is_read_as_it_prints() {
        let forms = [Sandbox::On, Sandbox::Required, Sandbox::Off, Sandbox::Seccomp(SeccompAction::Log)];
        assert_eq!(forms.map(|sandbox| sandbox.to_string()), FLAG);
        assert_eq!(forms.map(|sandbox| flag(&sandbox.to_string())), forms.map(Ok));
    }

    #[test]
    fn sandbox_flag_unknown_names_the_nearest_or_all() {
        let near = r#"unknown value "require", did you mean "required"?"#;
        assert_eq!(flag("require"), Err(near.to_owned()));
        let all = r#"unknown value "yes", expected one of "on", "required", "off", "log""#;
        assert_eq!(flag("yes"), Err(all.to_owned()));
    }

    #[test]
    fn sandbox_json_is_read_as_it_prints() {
        let json = FLAG.map(|name| name.parse::<Sandbox>().unwrap().json());
        assert_eq!(json, ["\"on\"", "\"required\"", "\"off\"", SECCOMP_LOG]);
        let read = json.map(|text| serde_json::from_str::<Sandbox>(&text).unwrap().to_string());
        assert_eq!(read, FLAG);
    }
}
