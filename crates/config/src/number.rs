//! Numbers in decimal and hexadecimal notation: addresses, ports and register values.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    strict::{self, ShallowValue},
    text::quote,
    value_error::ValueError,
};

/// A guest-physical address: in JSON a number, or a string of digits that may be hexadecimal, such as `"0x1000"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

/// A port in the guest's I/O space, written like an [`Address`], at most 0xffff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

/// The value of a 64-bit register, written like an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(u64);

/// How messages describe a kind of number.
pub(crate) struct NumberKind {
    /// Description with an article.
    pub(crate) what: &'static str,
    /// An example.
    pub(crate) like: &'static str,
}

impl NumberKind {
    const ADDRESS: NumberKind = NumberKind { what: "an address", like: "\"0x1000\"" };
    const PORT: NumberKind = NumberKind { what: "a port", like: "\"0xe9\"" };
    /// Any value computed by a guest.
    pub(crate) const VALUE: NumberKind = NumberKind { what: "a value", like: "42 or \"0x2a\"" };

    /// Reads a JSON number or string as an integer of type `T`.
    pub(crate) fn read<'de, D, T>(&self, deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64>,
    {
        strict::value(deserializer, |found| match found {
            ShallowValue::Unsigned(number) => T::try_from(number).map_err(|_| ValueError::TooLarge {
                value: number.to_string(),
                most: most::<T>().to_string(),
            }),
            ShallowValue::Text(text) => self.parse(text),
            other => Err(other.instead_of(&format!("{} such as {}", self.what, self.like))),
        })
    }

    /// Parses decimal digits, or hexadecimal ones after `0x`, as an integer of type `T`.
    pub(crate) fn parse<T: TryFrom<u64>>(&self, text: &str) -> Result<T, ValueError> {
        let (digits, radix) = split(text);
        if !is_number(digits, radix) {
            return Err(self.refusal(text));
        }
        // Only the range can be wrong now. The limit is shown in the same notation.
        let number = u64::from_str_radix(digits, radix).ok().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| {
            let most = most::<T>();
            let most = if radix == 16 { format!("{most:#x}") } else { most.to_string() };
            ValueError::TooLarge { value: quote(text), most }
        })
    }

    /// The error for text that isn't a number.
    fn refusal(&self, text: &str) -> ValueError {
        let owned = || text.to_owned();
        if text.strip_prefix('-').map(split).is_some_and(|(digits, radix)| is_number(digits, radix)) {
            return ValueError::Negative { text: owned() };
        }
        if text
            .split_once(['.', ','])
            .is_some_and(|(whole, rest)| is_number(whole, 10) && is_number(rest, 10))
        {
            return ValueError::Fraction { text: owned(), has_unit: false };
        }
        let joined = text.replace(|c: char| c == '_' || c.is_whitespace(), "");
        let (digits, radix) = split(&joined);
        if joined != text && is_number(digits, radix) {
            let problem = if text.contains('_') { "contains an underscore" } else { "contains white space" };
            return ValueError::Misspelt { text: owned(), problem, instead: joined };
        }
        let digits = text.strip_prefix("0X").unwrap_or(text);
        if is_number(digits, 16) {
            let problem = "lacks the 0x of a hexadecimal number";
            return ValueError::Misspelt { text: owned(), problem, instead: format!("0x{digits}") };
        }
        ValueError::NotANumber { text: owned(), what: self.what, like: self.like }
    }
}

/// The digits of a number, and their radix.
fn split(text: &str) -> (&str, u32) {
    text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16))
}

/// Whether `digits` is non-empty and consists of digits.
fn is_number(digits: &str, radix: u32) -> bool {
    !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix))
}

/// The maximum of the unsigned type `T`.
fn most<T>() -> u64 {
    u64::MAX >> (u64::BITS as usize - 8 * size_of::<T>())
}

/// The schema of an unsigned number of type `T` in both notations.
pub(crate) fn schema<T>(description: &str) -> Schema {
    json_schema!({
        "description": description,
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": most::<T>(),
        "pattern": "^(0x[0-9a-fA-F]+|[0-9]+)$",
    })
}

/// All kinds of numbers are parsed alike.
macro_rules! number {
    ($number:ident($integer:ty), $kind:expr, $description:literal) => {
        impl $number {
            /// The number.
            pub const fn get(self) -> $integer {
                self.0
            }
        }

        impl From<$integer> for $number {
            fn from(number: $integer) -> $number {
                $number(number)
            }
        }

        impl FromStr for $number {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<$number, ValueError> {
                $kind.parse(text).map($number)
            }
        }

        impl<'de> Deserialize<'de> for $number {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$number, D::Error> {
                $kind.read(deserializer).map($number)
            }
        }

        impl JsonSchema for $number {
            fn schema_name() -> Cow<'static, str> {
                stringify!($number).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema::<$integer>($description)
            }
        }
    };
}

number!(
    Address(u64),
    NumberKind::ADDRESS,
    "A guest-physical address: a number, or digits such as \"0x1000\"."
);
number!(Port(u16), NumberKind::PORT, "An I/O port: a number, or digits such as \"0xe9\".");
number!(Word(u64), NumberKind::VALUE, "A 64-bit value: a number, or digits such as \"0x2a\".");

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<u64, String> {
        text.parse::<Address>().map(Address::get).map_err(|error| error.to_string())
    }

    fn port(text: &str) -> Result<u16, String> {
        text.parse::<Port>().map(Port::get).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        address(text).unwrap_err()
    }

    #[test]
    fn number_either_notation_is_read() {
        assert_eq!(address("0"), Ok(0));
        assert_eq!(address("1024"), Ok(0x400));
        assert_eq!(address("0x400"), Ok(0x400));
        assert_eq!(address("0xFfFf"), Ok(0xffff));
        assert_eq!(address("0xffffffffffffffff"), Ok(u64::MAX));
    }

    #[test]
    fn number_too_large_names_the_most_in_its_notation() {
        assert_eq!(port("0x10000").unwrap_err(), "\"0x10000\" is too large, at most 0xffff");
        assert_eq!(port("65536").unwrap_err(), "\"65536\" is too large, at most 65535");
        assert_eq!(
            refusal("0x10000000000000000"),
            "\"0x10000000000000000\" is too large, at most 0xffffffffffffffff"
        );
    }

    #[test]
    fn number_with_underscore_is_shown_without() {
        assert_eq!(refusal("0x10_0000"), "\"0x10_0000\" contains an underscore, write \"0x100000\"");
        assert_eq!(refusal("1_024"), "\"1_024\" contains an underscore, write \"1024\"");
    }

    #[test]
    fn number_hexadecimal_without_prefix_is_shown_with() {
        assert_eq!(refusal("e9"), "\"e9\" lacks the 0x of a hexadecimal number, write \"0xe9\"");
        assert_eq!(refusal("0XE9"), "\"0XE9\" lacks the 0x of a hexadecimal number, write \"0xE9\"");
    }

    #[test]
    fn number_negative_is_refused() {
        assert_eq!(refusal("-1"), "\"-1\" is negative, write a number above 0");
        assert_eq!(refusal("-0x1"), "\"-0x1\" is negative, write a number above 0");
    }

    #[test]
    fn number_fraction_is_refused() {
        assert_eq!(refusal("1.5"), "\"1.5\" is a fraction, write a whole number");
    }

    #[test]
    fn number_with_white_space_is_shown_without() {
        assert_eq!(refusal("0x 400"), "\"0x 400\" contains white space, write \"0x400\"");
        assert_eq!(refusal("1024\n"), "\"1024\\n\" contains white space, write \"1024\"");
    }

    #[test]
    fn number_anything_else_shows_an_example() {
        assert_eq!(refusal(""), "\"\" is not an address, write one such as \"0x1000\"");
        assert_eq!(refusal("0x"), "\"0x\" is not an address, write one such as \"0x1000\"");
        assert_eq!(refusal("1M"), "\"1M\" is not an address, write one such as \"0x1000\"");
        assert_eq!(port("com1").unwrap_err(), "\"com1\" is not a port, write one such as \"0xe9\"");
    }

    #[test]
    fn number_long_text_is_refused_in_short() {
        assert!(refusal(&"f".repeat(1000)).len() < 200);
    }

    #[test]
    fn number_prints_as_it_is_best_read() {
        assert_eq!(Address::from(1024).to_string(), "0x400");
        assert_eq!(Port::from(0xe9).to_string(), "0xe9");
        assert_eq!(Word::from(42).to_string(), "42");
    }
}
