//! What a guest must have done when it halts.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    error::ValueError,
    number::{Address, NumberKind, Word, schema},
    strict,
};

/// What must hold when the guest halts: at least one thing, where it was read from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expect {
    /// The first processor's accumulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rax: Option<Word>,
    /// Integers in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<ExpectedMemory>,
}

/// An integer that memory must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedMemory {
    /// Where, aligned or not.
    pub address: Address,
    /// Which, little-endian.
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

// What is never serialized is skipped in that: schemars then shows no default for it, and there is none.

/// What must hold when the guest halts; it ends with an error otherwise.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct ExpectSection {
    /// What the first processor's accumulator must hold: rax, of which a guest in 16 or 32 bits sets the lower part.
    #[serde(deserialize_with = "strict::present")]
    #[schemars(with = "Word", skip_serializing_if = "Option::is_none")]
    rax: Option<Word>,
    /// Integers that the guest's memory must hold.
    #[serde(deserialize_with = "memory")]
    #[schemars(with = "Vec<ExpectedMemorySection>", skip_serializing_if = "Vec::is_empty")]
    memory: Vec<ExpectedMemory>,
}

/// An integer that the guest's memory must hold: its address, and one of u8, u16, u32 and u64.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"], "minProperties" = 2, "maxProperties" = 2))]
struct ExpectedMemorySection {
    /// Its guest-physical address.
    #[serde(deserialize_with = "strict::present")]
    #[schemars(with = "Address", skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    /// The byte that must be there.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u8>", skip_serializing_if = "Option::is_none")]
    u8: Option<u8>,
    /// The two bytes that must be there, little-endian.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u16>", skip_serializing_if = "Option::is_none")]
    u16: Option<u16>,
    /// The four bytes that must be there, little-endian.
    #[serde(deserialize_with = "integer")]
    #[schemars(schema_with = "integer_schema::<u32>", skip_serializing_if = "Option::is_none")]
    u32: Option<u32>,
    /// The eight bytes that must be there, little-endian.
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
