//! Conditions that must hold when the guest halts.

use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    number::{Address, NumberKind, Word, schema},
    strict,
    text::{expected, quote},
    value_error::ValueError,
};

/// Conditions that must hold when the guest halts. At least one, if read from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expect {
    /// The first processor's accumulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rax: Option<Word>,
    /// Integers in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<ExpectedMemory>,
}

/// Expected value of an integer in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedMemory {
    /// Its address; alignment isn't required.
    pub address: Address,
    /// The value, little-endian.
    #[serde(flatten)]
    pub value: Value,
}

/// An integer of a given width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// One byte.
    U8(u8),
    /// Two bytes.
    U16(u16),
    /// Four bytes.
    U32(u32),
    /// Eight bytes.
    U64(u64),
}

impl Expect {
    /// Adds the conditions of `other`.
    ///
    /// # Errors
    /// Both have a condition for the accumulator; nothing is changed.
    pub(crate) fn add(&mut self, other: Expect) -> Result<(), ValueError> {
        if self.rax.is_some() && other.rax.is_some() {
            return Err(ValueError::RaxTwice);
        }
        self.rax = self.rax.or(other.rax);
        self.memory.extend(other.memory);
        Ok(())
    }

    /// Merges the file's conditions with those of flags, which take precedence.
    pub(crate) fn replaced(file: Option<Expect>, flags: Option<Expect>) -> Option<Expect> {
        match (file, flags) {
            (Some(file), Some(flags)) => {
                let memory = file.memory.into_iter().chain(flags.memory).collect();
                Some(Expect { rax: flags.rax.or(file.rax), memory })
            }
            (file, flags) => flags.or(file),
        }
    }
}

/// Parses a single condition in the command line's notation: `rax=42`, `0x400=42` or `0x400:u8=42`.
impl FromStr for Expect {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Expect, ValueError> {
        let Some((place, value)) = text.split_once('=') else {
            let expected = "rax=42, 0x400=42 or 0x400:u8=42".to_owned();
            return Err(ValueError::WrongType { expected, found: quote(text) });
        };
        if place == "rax" {
            return Ok(Expect { rax: Some(value.parse()?), memory: Vec::new() });
        }
        let (address, width) = place.split_once(':').unwrap_or((place, "u64"));
        if address == "rax" {
            return Err(ValueError::UnknownName {
                what: "place",
                name: place.to_owned(),
                hint: "rax has 64 bits and no width, write \"rax=\"".to_owned(),
            });
        }
        let address = address.parse().map_err(|problem| match problem {
            ValueError::NotANumber { text, .. } => ValueError::UnknownName {
                what: "place",
                name: text,
                hint: "expected rax or an address such as 0x400".to_owned(),
            },
            other => other,
        })?;
        let value = Value::parse(width, value)?;
        Ok(Expect { rax: None, memory: vec![ExpectedMemory { address, value }] })
    }
}

impl Value {
    /// Parses `text` as an integer of the width called `width`.
    fn parse(width: &str, text: &str) -> Result<Value, ValueError> {
        let kind = NumberKind::VALUE;
        match width {
            "u8" => kind.parse(text).map(Value::U8),
            "u16" => kind.parse(text).map(Value::U16),
            "u32" => kind.parse(text).map(Value::U32),
            "u64" => kind.parse(text).map(Value::U64),
            _ => {
                let hint = expected(&["u8", "u16", "u32", "u64"]);
                Err(ValueError::UnknownName { what: "width", name: width.to_owned(), hint })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expect, D::Error> {
        strict::checked::<_, ExpectSection, _>(deserializer, "an object such as {\"rax\": 42}")
    }
}

impl<'de> Deserialize<'de> for ExpectedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExpectedMemory, D::Error> {
        let expected = "an object such as {\"address\": \"0x400\", \"u64\": 42}";
        strict::checked::<_, ExpectedMemorySection, _>(deserializer, expected)
    }
}

// Fields that are never serialized: schemars then shows no default, and there is none.

/// Conditions that must hold when the guest halts; otherwise the run ends with an error.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct ExpectSection {
    /// Expected value of the first processor's accumulator rax, of which a 16-bit or 32-bit guest sets the
    /// lower part.
    #[serde(deserialize_with = "strict::present")]
    #[schemars(with = "Word", skip_serializing_if = "Option::is_none")]
    rax: Option<Word>,
    /// Expected integers in the guest's memory.
    #[serde(deserialize_with = "memory")]
    #[schemars(with = "Vec<ExpectedMemorySection>", skip_serializing_if = "Vec::is_empty")]
    memory: Vec<ExpectedMemory>,
}

/// Expected value of an integer in the guest's memory: its address, and one of u8, u16, u32 and u64.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"], "minProperties" = 2, "maxProperties" = 2))]
struct ExpectedMemorySection {
    /// Its guest-physical address.
    #[serde(deserialize_with = "strict::present")]
    #[schemars(with = "Address", skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    /// The expected byte.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u8>", skip_serializing_if = "Option::is_none")]
    u8: Option<u8>,
    /// The expected two bytes, little-endian.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u16>", skip_serializing_if = "Option::is_none")]
    u16: Option<u16>,
    /// The expected four bytes, little-endian.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u32>", skip_serializing_if = "Option::is_none")]
    u32: Option<u32>,
    /// The expected eight bytes, little-endian.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u64>", skip_serializing_if = "Option::is_none")]
    u64: Option<u64>,
}

impl TryFrom<ExpectSection> for Expect {
    type Error = ValueError;

    fn try_from(section: ExpectSection) -> Result<Expect, ValueError> {
        let ExpectSection { rax, memory } = section;
        if rax.is_none() && memory.is_empty() {
            return Err(ValueError::ExpectsNothing);
        }
        Ok(Expect { rax, memory })
    }
}

impl TryFrom<ExpectedMemorySection> for ExpectedMemory {
    type Error = ValueError;

    fn try_from(section: ExpectedMemorySection) -> Result<ExpectedMemory, ValueError> {
        let incomplete = |missing, give: &str| ValueError::Incomplete { missing, give: give.to_owned() };
        let address = section.address.ok_or_else(|| incomplete("\"address\"", "the address of the value"))?;
        let mut values = [
            section.u8.map(|value| ("u8", Value::U8(value))),
            section.u16.map(|value| ("u16", Value::U16(value))),
            section.u32.map(|value| ("u32", Value::U32(value))),
            section.u64.map(|value| ("u64", Value::U64(value))),
        ]
        .into_iter()
        .flatten();
        let one_of_all = r#"one of "u8", "u16", "u32", "u64""#;
        let (name, value) = values.next().ok_or_else(|| incomplete("the value", one_of_all))?;
        match values.next() {
            Some((second, _)) => Err(ValueError::Both(name, second)),
            None => Ok(ExpectedMemory { address, value }),
        }
    }
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ExpectedMemory>, D::Error> {
    strict::list(deserializer, "a list such as [{\"address\": \"0x400\", \"u64\": 42}]")
}

fn integer<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    NumberKind::VALUE.read(deserializer).map(Some)
}

fn integer_schema<T>(_: &mut SchemaGenerator) -> Schema {
    schema::<T>("An integer: a number, or digits such as \"0x2a\".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> (u64, Value) {
        let expect: Expect = text.parse().unwrap();
        assert_eq!((expect.rax, expect.memory.len()), (None, 1));
        (expect.memory[0].address.get(), expect.memory[0].value)
    }

    fn refusal(text: &str) -> String {
        text.parse::<Expect>().unwrap_err().to_string()
    }

    #[test]
    fn expect_rax_in_either_notation_is_read() {
        assert_eq!("rax=42".parse(), Ok(Expect { rax: Some(42.into()), memory: vec![] }));
        assert_eq!("rax=0x2a".parse(), Ok(Expect { rax: Some(42.into()), memory: vec![] }));
    }

    #[test]
    fn expect_memory_without_width_is_64_bits() {
        assert_eq!(memory("0x400=42"), (0x400, Value::U64(42)));
        assert_eq!(memory("1024=0xffffffffffffffff"), (0x400, Value::U64(u64::MAX)));
    }

    #[test]
    fn expect_memory_of_each_width_is_read() {
        assert_eq!(memory("0:u8=255"), (0, Value::U8(u8::MAX)));
        assert_eq!(memory("1:u16=0xaa55"), (1, Value::U16(0xaa55)));
        assert_eq!(memory("2:u32=7"), (2, Value::U32(7)));
        assert_eq!(memory("3:u64=8"), (3, Value::U64(8)));
    }

    #[test]
    fn expect_of_another_register_is_refused() {
        assert_eq!(refusal("rbx=1"), "unknown place \"rbx\", expected rax or an address such as 0x400");
        let expected = "unknown place \"rax:u8\", rax has 64 bits and no width, write \"rax=\"";
        assert_eq!(refusal("rax:u8=42"), expected);
        assert_eq!(refusal("=1"), "unknown place \"\", expected rax or an address such as 0x400");
    }

    #[test]
    fn expect_address_without_prefix_is_shown_with() {
        assert_eq!(refusal("4f0=1"), "\"4f0\" lacks the 0x of a hexadecimal number, write \"0x4f0\"");
    }

    #[test]
    fn expect_unknown_width_is_refused_with_those_that_exist() {
        let expected = r#"unknown width "u128", expected one of "u8", "u16", "u32", "u64""#;
        assert_eq!(refusal("0x400:u128=1"), expected);
    }

    #[test]
    fn expect_value_beyond_its_width_is_refused() {
        assert_eq!(refusal("0x400:u8=256"), "\"256\" is too large, at most 255");
        assert_eq!(refusal("rax="), "\"\" is not a value, write one such as 42 or \"0x2a\"");
    }
}
