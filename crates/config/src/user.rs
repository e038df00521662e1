//! The user as which the monitor runs.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    strict::{self, ShallowValue},
    text::quote,
    value_error::ValueError,
};

/// The user and the group to which a monitor changes that root has started. Absent ones are [`UnixId::NOBODY`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"uid\": 1000, \"gid\": 1000}")]
pub struct User {
    /// The user's number; default: 65534, nobody. Only for a monitor that root starts.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UnixId")]
    pub uid: Option<UnixId>,
    /// The group's number; default: 65534, nogroup. Only for a monitor that root starts.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UnixId")]
    pub gid: Option<UnixId>,
}

impl User {
    /// Whether neither is set.
    pub fn is_empty(&self) -> bool {
        *self == User::default()
    }
}

/// Number of a user or a group, 0 to 4294967294.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UnixId(u32);

impl UnixId {
    /// The highest number. One more is -1, which means no user (setresuid(2)).
    pub const MAX: UnixId = UnixId(u32::MAX - 1);
    /// The user and group without files of their own: nobody and nogroup in Debian, and the number that Linux
    /// shows for users without one (Documentation/admin-guide/sysctl/fs.rst, overflowuid).
    pub const NOBODY: UnixId = UnixId(65534);

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for UnixId {
    type Error = ValueError;

    fn try_from(number: u64) -> Result<UnixId, ValueError> {
        let fits = u32::try_from(number).ok().map(UnixId).filter(|id| *id <= UnixId::MAX);
        fits.ok_or_else(|| ValueError::TooLarge { value: number.to_string(), most: UnixId::MAX.to_string() })
    }
}

impl FromStr for UnixId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<UnixId, ValueError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let (text, what) = (text.to_owned(), "the number of a user or group");
            return Err(ValueError::NotANumber { text, what, like: "1000" });
        }
        // All digits, so only the range can be wrong; u64::MAX stands for anything larger.
        UnixId::try_from(text.parse().unwrap_or(u64::MAX))
            .map_err(|_| ValueError::TooLarge { value: quote(text), most: UnixId::MAX.to_string() })
    }
}

impl fmt::Display for UnixId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for UnixId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UnixId, D::Error> {
        strict::value(deserializer, |found| match found {
            ShallowValue::Unsigned(number) => UnixId::try_from(number),
            other => Err(other.instead_of("the number of a user or group, such as 1000")),
        })
    }
}

impl JsonSchema for UnixId {
    fn schema_name() -> Cow<'static, str> {
        "UnixId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Number of a user or a group.",
            "type": "integer",
            "minimum": 0,
            "maximum": UnixId::MAX.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> Result<u32, String> {
        text.parse().map(UnixId::get).map_err(|error: ValueError| error.to_string())
    }

    #[test]
    fn id_at_its_limits_is_accepted() {
        assert_eq!(flag("0"), Ok(0));
        assert_eq!(flag("4294967294"), Ok(u32::MAX - 1));
        assert_eq!(UnixId::NOBODY.to_string(), "65534");
    }

    /// setresuid(2) would change nothing.
    #[test]
    fn id_that_means_none_is_refused() {
        let refused = r#""4294967295" is too large, at most 4294967294"#;
        assert_eq!(flag("4294967295"), Err(refused.to_owned()));
        let refused = r#""36893488147419103232" is too large, at most 4294967294"#;
        assert_eq!(flag("36893488147419103232"), Err(refused.to_owned()));
    }

    #[test]
    fn id_that_is_a_name_or_signed_shows_an_example() {
        let refused =
            |text: &str| format!("\"{text}\" is not the number of a user or group, write one such as 1000");
        assert_eq!(flag("nobody"), Err(refused("nobody")));
        assert_eq!(flag("-1"), Err(refused("-1")));
        assert_eq!(flag("+1"), Err(refused("+1")));
        assert_eq!(flag(""), Err(refused("")));
    }
}
