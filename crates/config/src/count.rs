//! Number of virtual processors.

use std::{borrow::Cow, fmt, num::NonZeroU16, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    strict::{self, ShallowValue},
    text::quote,
    value_error::ValueError,
};

/// A number of virtual processors, or of threads, cores or sockets, 1 to 4096. The host's own limit may be
/// lower, and is checked once KVM is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuCount(NonZeroU16);

impl CpuCount {
    /// 1.
    pub const MIN: CpuCount = CpuCount(NonZeroU16::MIN);
    /// The maximum of any x86 build of KVM (Linux, arch/x86/kvm/Kconfig, KVM_MAX_NR_VCPUS).
    pub const MAX: CpuCount = CpuCount(NonZeroU16::new(4096).expect("4096 is not zero"));

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for CpuCount {
    fn default() -> CpuCount {
        CpuCount::MIN
    }
}

impl TryFrom<u64> for CpuCount {
    type Error = ValueError;

    fn try_from(count: u64) -> Result<CpuCount, ValueError> {
        let Some(nonzero) =
            u16::try_from(count).ok().filter(|count| *count <= Self::MAX.get()).map(NonZeroU16::new)
        else {
            return Err(ValueError::TooLarge { value: count.to_string(), most: Self::MAX.to_string() });
        };
        let too_small = || ValueError::TooSmall { value: count.to_string(), least: Self::MIN.to_string() };
        nonzero.map(CpuCount).ok_or_else(too_small)
    }
}

impl FromStr for CpuCount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<CpuCount, ValueError> {
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if all_digits(text) {
            // All digits, so only the range can be wrong; u64::MAX stands for anything larger.
            return CpuCount::try_from(text.parse().unwrap_or(u64::MAX)).map_err(|error| match error {
                ValueError::TooLarge { most, .. } => ValueError::TooLarge { value: quote(text), most },
                other => other,
            });
        }
        Err(match text.strip_prefix('-') {
            Some(rest) if all_digits(rest) => ValueError::Negative { text: text.to_owned() },
            _ => ValueError::NotANumber { text: text.to_owned(), what: "a whole number", like: "2" },
        })
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for CpuCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CpuCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CpuCount, D::Error> {
        strict::value(deserializer, |found| match found {
            ShallowValue::Unsigned(count) => CpuCount::try_from(count),
            other => Err(other.instead_of("a whole number from 1 to 4096")),
        })
    }
}

impl JsonSchema for CpuCount {
    fn schema_name() -> Cow<'static, str> {
        "CpuCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of virtual processors, threads, cores or sockets.",
            "type": "integer",
            "minimum": CpuCount::MIN,
            "maximum": CpuCount::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<CpuCount>().unwrap_err().to_string()
    }

    #[test]
    fn count_at_its_limits_is_accepted() {
        assert_eq!("1".parse(), Ok(CpuCount::MIN));
        assert_eq!("4096".parse(), Ok(CpuCount::MAX));
    }

    #[test]
    fn count_zero_names_the_least() {
        assert_eq!(refusal("0"), "0 is too small, at least 1");
    }

    #[test]
    fn count_above_kvm_names_the_most() {
        assert_eq!(refusal("4097"), "\"4097\" is too large, at most 4096");
        assert_eq!(refusal("65536"), "\"65536\" is too large, at most 4096");
    }

    #[test]
    fn count_beyond_64_bits_is_shown_as_written() {
        assert_eq!(refusal("18446744073709551616"), "\"18446744073709551616\" is too large, at most 4096");
    }

    #[test]
    fn count_negative_is_refused() {
        assert_eq!(refusal("-1"), "\"-1\" is negative, write a number above 0");
    }

    #[test]
    fn count_word_shows_an_example() {
        assert_eq!(refusal("two"), "\"two\" is not a whole number, write one such as 2");
        assert_eq!(refusal(""), "\"\" is not a whole number, write one such as 2");
        assert_eq!(refusal("1.5"), "\"1.5\" is not a whole number, write one such as 2");
    }
}
