//! Reads the fields of a virtio device into the derived type of its kind.
//!
//! serde's own messages mention Rust types, accept a list for a struct and null for an option. So every call
//! of derived code is served by what the JSON contains, [`strict::read`], recursively. Kinds don't need to do
//! anything for it.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, Expected, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::Value;
use serde_path_to_error::{Segment, Track};

use crate::{
    choice::EnumReader,
    file::json_path,
    strict::{self, Reader, ShallowValue, StructReader, expectation},
    text::quote,
    value_error::ValueError,
};

/// Fields of a virtio device that its kind doesn't receive.
const BESIDE: &[&str] = &["type", "id", "slot"];
/// The same of a legacy device, which is on no PCI bus.
const BESIDE_LEGACY: &[&str] = &["type", "id"];

/// Why the fields of a device can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field within the device, such as `limits.bytes_per_second`; empty for the device as a
    /// whole.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

/// Reads the fields of a virtio device, an object without `type`, `id` and `slot`.
///
/// # Errors
/// A field is unknown, missing or invalid.
pub fn read_fields<T: DeserializeOwned>(fields: &Value) -> Result<T, FieldError> {
    read_beside(fields, BESIDE)
}

/// Reads the fields of a legacy device, an object without `type` and `id`.
///
/// # Errors
/// A field is unknown, missing or invalid.
pub fn read_legacy_fields<T: DeserializeOwned>(fields: &Value) -> Result<T, FieldError> {
    read_beside(fields, BESIDE_LEGACY)
}

/// Reads the fields of a [`DeviceUpdate`](crate::DeviceUpdate), in the same way.
///
/// # Errors
/// A field is unknown, missing or invalid.
pub fn read_update<T: DeserializeOwned>(fields: &Value) -> Result<T, FieldError> {
    read_beside(fields, &[])
}

fn read_beside<T: DeserializeOwned>(
    fields: &Value,
    beside: &'static [&'static str],
) -> Result<T, FieldError> {
    read(fields, beside).map_err(|(path, problem)| {
        let problem = match missing_name(&problem) {
            Some(name) => missing::<T>(fields.clone(), &path, name),
            None => problem,
        };
        FieldError { field: json_path(&path), problem }
    })
}

fn read<T: DeserializeOwned>(
    fields: &Value,
    beside: &'static [&'static str],
) -> Result<T, (serde_path_to_error::Path, String)> {
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(fields, &mut track);
    let read = T::deserialize(FieldDeserializer { inner: tracked, beside });
    read.map_err(|error| (track.path(), error.to_string()))
}

/// The field that serde reports as missing.
fn missing_name(problem: &str) -> Option<&str> {
    problem.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The message for the missing member `name` of the object at `path`. Only its type knows what is expected,
/// and says so when it is given a null.
fn missing<T: DeserializeOwned>(mut fields: Value, path: &serde_path_to_error::Path, name: &str) -> String {
    let object = path.iter().try_fold(&mut fields, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(index),
        _ => None,
    });
    if let Some(object) = object.and_then(Value::as_object_mut) {
        object.insert(name.to_owned(), Value::Null);
    }
    let refused = read::<T>(&fields, &[]).err().map(|(_, problem)| problem);
    let expected = refused.as_deref().and_then(|problem| problem.strip_prefix("expected "));
    match expected.and_then(|expected| expected.strip_suffix(", found null")) {
        Some(expected) => format!("{} is missing, add {expected}", quote(name)),
        None => format!("{} is missing", quote(name)),
    }
}

/// Serves derived code by what the JSON contains.
struct FieldDeserializer<D> {
    inner: D,
    /// Names that a struct may have in addition to its own.
    beside: &'static [&'static str],
}

/// For nested values, which have no additional names.
fn inside<D>(inner: D) -> FieldDeserializer<D> {
    FieldDeserializer { inner, beside: &[] }
}

impl<'de, D: Deserializer<'de>> FieldDeserializer<D> {
    /// Reads a whole number from `first` to `last`.
    fn number(self, first: i128, last: i128) -> Result<i128, D::Error> {
        strict::value(self, |found| {
            let number = match found {
                ShallowValue::Unsigned(number) => Some(i128::from(number)),
                ShallowValue::Signed(number) => Some(i128::from(number)),
                _ => None,
            };
            let in_range = number.filter(|number| (first..=last).contains(number));
            in_range.ok_or_else(|| found.instead_of(&format!("a whole number from {first} to {last}")))
        })
    }

    fn text(self) -> Result<String, D::Error> {
        strict::value(self, |found| match found {
            ShallowValue::Text(text) => Ok(text.to_owned()),
            other => Err(other.instead_of("a string")),
        })
    }

    fn float(self) -> Result<f64, D::Error> {
        strict::value(self, |found| match found {
            ShallowValue::Float(number) => Ok(number),
            ShallowValue::Unsigned(number) => Ok(number as f64),
            ShallowValue::Signed(number) => Ok(number as f64),
            other => Err(other.instead_of("a number such as 0.5")),
        })
    }
}

/// Implements the methods for whole numbers.
macro_rules! whole_numbers {
    ($($call:ident $visit:ident $number:ident),*) => {$(
        fn $call<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let number = self.number($number::MIN.into(), $number::MAX.into())?;
            visitor.$visit($number::try_from(number).map_err(D::Error::custom)?)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for FieldDeserializer<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Nested(visitor))
    }

    whole_numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let is_true = strict::value(self, |found| match found {
            ShallowValue::Bool(value) => Ok(value),
            other => Err(other.instead_of("true or false")),
        })?;
        visitor.visit_bool(is_true)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_string(self.text()?)
    }

    /// Null isn't accepted: leaving a field out selects the default.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        strict::read(self, ListReader(visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        strict::read(self, MapReader(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let beside = self.beside;
        strict::read(self, StructReader { names, beside, visitor })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        strict::read(self, EnumReader { names, visitor })
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// Reads a list into a derived visitor.
struct ListReader<V>(V);

impl<'de, V: Visitor<'de>> Reader<'de> for ListReader<V> {
    type Value = V::Value;

    fn scalar(self, found: ShallowValue<'_>) -> Result<V::Value, ValueError> {
        Err(found.instead_of(&expectation(&self.0, "a sequence").unwrap_or_else(|| "a list".to_owned())))
    }

    fn list<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(elements)
    }
}

/// Reads an object with arbitrary names into a derived visitor.
struct MapReader<V>(V);

impl<'de, V: Visitor<'de>> Reader<'de> for MapReader<V> {
    type Value = V::Value;

    fn scalar(self, found: ShallowValue<'_>) -> Result<V::Value, ValueError> {
        Err(found.instead_of(&expectation(&self.0, "a map").unwrap_or_else(|| "an object".to_owned())))
    }

    fn object<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(members)
    }
}

/// Reads the elements of a list or object in the same way as the value that contains them.
struct Nested<T>(T);

impl<'de, V: Visitor<'de>> Visitor<'de> for Nested<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Expected::fmt(&self.0, f)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.0.visit_bool(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.0.visit_u64(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.0.visit_i64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.0.visit_f64(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.0.visit_str(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Nested(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Nested(members))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Nested(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Nested(seed))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nested<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(inside(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parcel {
        name: String,
        #[serde(default)]
        is_heavy: bool,
        #[serde(default)]
        marks: Vec<u8>,
        weight: Option<f64>,
        size: Option<Size>,
        transport: Option<Transport>,
        #[serde(default)]
        taxes: std::collections::BTreeMap<String, i16>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Size {
        width: u32,
        height: Option<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase", expecting = "\"air\" or an object such as {\"sea\": [1]}")]
    enum Transport {
        Air,
        Sea(Vec<Size>),
    }

    /// The message for a parcel with this field.
    fn refusal(name: &str, value: Value) -> String {
        let mut fields = json!({"name": "a"});
        fields[name] = value;
        read_fields::<Parcel>(&fields).unwrap_err().to_string()
    }

    #[test]
    fn fields_of_every_type_are_read() {
        let fields = json!({
            "name": "a", "is_heavy": true, "marks": [1, 255], "weight": 2, "size": {"width": 3},
            "transport": {"sea": [{"width": 1, "height": 2}]}, "taxes": {"x y": -32768}
        });
        let expected = Parcel {
            name: "a".into(),
            is_heavy: true,
            marks: vec![1, 255],
            weight: Some(2.0),
            size: Some(Size { width: 3, height: None }),
            transport: Some(Transport::Sea(vec![Size { width: 1, height: Some(2) }])),
            taxes: [("x y".into(), -32768)].into(),
        };
        assert_eq!(read_fields(&fields), Ok(expected));
    }

    #[test]
    fn value_of_another_type_is_refused_in_the_words_of_json() {
        assert_eq!(refusal("name", json!(5)), "name: expected a string, found the number 5");
        assert_eq!(
            refusal("is_heavy", json!("yes")),
            "is_heavy: expected true or false, found the string \"yes\""
        );
        assert_eq!(refusal("marks", json!("x")), "marks: expected a list, found the string \"x\"");
        assert_eq!(
            refusal("marks", json!([1, 256])),
            "marks[1]: expected a whole number from 0 to 255, found the number 256"
        );
        assert_eq!(refusal("weight", json!([])), "weight: expected a number such as 0.5, found a list");
        assert_eq!(
            refusal("size", json!(5)),
            "size: expected an object such as {\"width\": ...}, found the number 5"
        );
        assert_eq!(
            refusal("taxes", json!({"x y": 1.0})),
            "taxes[\"x y\"]: expected a whole number from -32768 to 32767, found the number 1.0"
        );
        assert_eq!(refusal("taxes", json!(true)), "taxes: expected an object, found true");
    }

    #[test]
    fn list_is_no_object_whose_fields_have_places() {
        assert_eq!(
            refusal("size", json!([1, 2])),
            "size: expected an object such as {\"width\": ...}, found a list"
        );
        let transport = "transport.sea[0]: expected an object such as {\"width\": ...}, found a list";
        assert_eq!(refusal("transport", json!({"sea": [[1, 2]]})), transport);
    }

    #[test]
    fn null_is_no_value_of_an_optional_field() {
        assert_eq!(refusal("weight", Value::Null), "weight: expected a number such as 0.5, found null");
        assert_eq!(
            refusal("transport", Value::Null),
            "transport: expected \"air\" or an object such as {\"sea\": [1]}, found null"
        );
    }

    #[test]
    fn name_unknown_names_the_nearest_at_any_depth() {
        assert_eq!(refusal("isheavy", json!(true)), "isheavy: unknown field, did you mean \"is_heavy\"?");
        assert_eq!(
            refusal("size", json!({"witdh": 1})),
            "size.witdh: unknown field, did you mean \"width\"?"
        );
        assert_eq!(
            refusal("transport", json!("aix")),
            "transport: unknown value \"aix\", did you mean \"air\"?"
        );
        assert_eq!(
            refusal("transport", json!({"see": []})),
            "transport.see: unknown field, did you mean \"sea\"?"
        );
    }

    /// These belong to the device, though its kind doesn't read them.
    #[test]
    fn name_like_type_or_id_is_meant_so() {
        assert_eq!(refusal("typ", json!("a")), "typ: unknown field, did you mean \"type\"?");
        assert_eq!(
            refusal("size", json!({"typ": 1})),
            "size.typ: unknown field, expected one of \"width\", \"height\""
        );
    }

    #[test]
    fn name_missing_says_what_to_give() {
        let error = read_fields::<Parcel>(&json!({})).unwrap_err();
        assert_eq!(error.to_string(), ": \"name\" is missing, add a string");
        let sea = "transport.sea[1]: \"width\" is missing, add a whole number from 0 to 4294967295";
        assert_eq!(refusal("transport", json!({"sea": [{"width": 1}, {}]})), sea);
    }

    #[test]
    fn name_with_a_control_character_is_quoted() {
        let message = r#"["a\u{1b}b"]: unknown field, expected one of "name", "is_heavy", "marks", "weight", "size", "transport", "taxes", "type", "id", "slot""#;
        assert_eq!(refusal("a\u{1b}b", json!(1)), message);
    }
}
