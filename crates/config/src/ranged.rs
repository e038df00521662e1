//! Whole numbers within a field's range.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::strict::{self, ShallowValue};

/// A whole number from `FIRST` to `LAST`. Error messages contain the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranged<const FIRST: u64, const LAST: u64>(u64);

impl<const FIRST: u64, const LAST: u64> Ranged<FIRST, LAST> {
    /// `value`, if it is within the range.
    pub const fn new(value: u64) -> Option<Self> {
        if FIRST <= value && value <= LAST { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const FIRST: u64, const LAST: u64> fmt::Display for Ranged<FIRST, LAST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const FIRST: u64, const LAST: u64> Deserialize<'de> for Ranged<FIRST, LAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        strict::value(deserializer, |found| {
            let value = if let ShallowValue::Unsigned(value) = found { Self::new(value) } else { None };
            value.ok_or_else(|| found.instead_of(&format!("a whole number from {FIRST} to {LAST}")))
        })
    }
}

impl<const FIRST: u64, const LAST: u64> JsonSchema for Ranged<FIRST, LAST> {
    fn schema_name() -> Cow<'static, str> {
        format!("NumberFrom{FIRST}To{LAST}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": FIRST, "maximum": LAST})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mtu = Ranged<68, 65535>;

    fn refusal(json: &str) -> String {
        let error = serde_json::from_str::<serde_json::Value>(json).map(serde_json::from_value::<Mtu>);
        error.unwrap().unwrap_err().to_string()
    }

    #[test]
    fn number_at_the_ends_of_its_range_is_taken() {
        assert_eq!(serde_json::from_str::<Mtu>("68").unwrap().get(), 68);
        assert_eq!(serde_json::from_str::<Mtu>("65535").unwrap().get(), 65535);
    }

    #[test]
    fn number_out_of_its_range_names_the_range() {
        let expected = |found: &str| format!("expected a whole number from 68 to 65535, found {found}");
        assert_eq!(refusal("67"), expected("the number 67"));
        assert_eq!(refusal("65536"), expected("the number 65536"));
        assert_eq!(refusal("-1"), expected("the number -1"));
        assert_eq!(refusal("1500.5"), expected("the number 1500.5"));
        assert_eq!(refusal("36893488147419103232"), expected("the number 3.6893488147419103e19"));
        assert_eq!(refusal("\"1500\""), expected("the string \"1500\""));
        assert_eq!(refusal("null"), expected("null"));
    }
}
