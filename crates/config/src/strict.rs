//! Reads JSON through serde with our own messages: what was expected, what was found, in which field.
//!
//! serde's derived code passes the fields of a struct to its deserializer, so one wrapper, [`object`], gives
//! all derived structs the same messages. Unknown and duplicate names are rejected while the *name* is being
//! read, so that the error's path contains the name and its position is that of the name.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};

use crate::{
    text::{hint, quote},
    value_error::ValueError,
};

/// A JSON value, with lists and objects reduced to their type.
pub(crate) enum ShallowValue<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Negative.
    Signed(i64),
    /// With a point or an exponent, or beyond 64 bits.
    Float(f64),
    Text(&'a str),
    List,
    Object,
}

impl ShallowValue<'_> {
    /// The error for finding this instead of `expected`.
    pub(crate) fn instead_of(&self, expected: &str) -> ValueError {
        ValueError::WrongType { expected: expected.to_owned(), found: self.to_string() }
    }
}

impl fmt::Display for ShallowValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShallowValue::Null => f.write_str("null"),
            ShallowValue::Bool(value) => write!(f, "{value}"),
            ShallowValue::Unsigned(number) => write!(f, "the number {number}"),
            ShallowValue::Signed(number) => write!(f, "the number {number}"),
            // Debug prints 1.0 with its point, which is what is wrong with it.
            ShallowValue::Float(number) => write!(f, "the number {number:?}"),
            ShallowValue::Text(text) => write!(f, "the string {}", quote(text)),
            ShallowValue::List => f.write_str("a list"),
            ShallowValue::Object => f.write_str("an object"),
        }
    }
}

/// Creates a value from any JSON value.
pub(crate) trait Reader<'de>: Sized {
    type Value;

    /// Accepts anything except the elements of a list or the members of an object.
    fn scalar(self, found: ShallowValue<'_>) -> Result<Self::Value, ValueError>;

    /// Accepts an object; an error by default.
    fn object<A: MapAccess<'de>>(self, _map: A) -> Result<Self::Value, A::Error> {
        self.scalar(ShallowValue::Object).map_err(A::Error::custom)
    }

    /// Accepts a list; an error by default.
    fn list<A: SeqAccess<'de>>(self, _elements: A) -> Result<Self::Value, A::Error> {
        self.scalar(ShallowValue::List).map_err(A::Error::custom)
    }
}

/// Reads one value with `reader`.
pub(crate) fn read<'de, D: Deserializer<'de>, R: Reader<'de>>(d: D, reader: R) -> Result<R::Value, D::Error> {
    d.deserialize_any(AnyVisitor(reader))
}

/// Reads one value, neither list nor object, with `read_found`.
pub(crate) fn value<'de, D, T, F>(deserializer: D, read_found: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(ShallowValue<'_>) -> Result<T, ValueError>,
{
    struct Scalar<F>(F);

    impl<T, F: FnOnce(ShallowValue<'_>) -> Result<T, ValueError>> Reader<'_> for Scalar<F> {
        type Value = T;

        fn scalar(self, found: ShallowValue<'_>) -> Result<T, ValueError> {
            (self.0)(found)
        }
    }

    read(deserializer, Scalar(read_found))
}

/// Reads a string that parses as a `T`, which `expected` describes.
pub(crate) fn text<'de, D, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = ValueError>,
{
    value(deserializer, |found| match found {
        ShallowValue::Text(text) => text.parse(),
        other => Err(other.instead_of(expected)),
    })
}

/// Reads a string that parses as a `T` of another crate, which `expected` describes with an example in JSON.
///
/// # Errors
/// The value isn't a string, or doesn't parse.
pub fn parsed<'de, D, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = value(deserializer, |found| match found {
        ShallowValue::Text(text) => Ok(text.to_owned()),
        other => Err(other.instead_of(expected)),
    })?;
    text.parse().map_err(D::Error::custom)
}

/// Reads a field that may be absent but not null, because leaving it out is the only way to select the
/// default. For serde's `deserialize_with`, together with `default`.
///
/// # Errors
/// Those of `T`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a derived struct; rejects unknown and duplicate names.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(StructDeserializer(deserializer))
}

/// Reads an optional field, as [`present`] does, of a derived struct type.
pub(crate) fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

/// Reads an optional field, as [`present`] does, of type `bool`.
pub(crate) fn present_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    value(deserializer, |found| match found {
        ShallowValue::Bool(value) => Ok(Some(value)),
        other => Err(other.instead_of("true or false")),
    })
}

/// Reads an object as the derived struct `S` and converts that to a `T`, which `expected` describes.
pub(crate) fn checked<'de, D, S, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    S: Deserialize<'de>,
    T: TryFrom<S, Error = ValueError>,
{
    struct Checked<'a, S, T>(&'a str, PhantomData<(S, T)>);

    impl<'de, S: Deserialize<'de>, T: TryFrom<S, Error = ValueError>> Reader<'de> for Checked<'_, S, T> {
        type Value = T;

        fn scalar(self, found: ShallowValue<'_>) -> Result<T, ValueError> {
            Err(found.instead_of(self.0))
        }

        fn object<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            let section: S = object(MapAccessDeserializer::new(members))?;
            section.try_into().map_err(A::Error::custom)
        }
    }

    read(deserializer, Checked(expected, PhantomData))
}

/// Reads a list, which `expected` describes with an example in JSON.
///
/// # Errors
/// The value isn't a list, or an element isn't a `T`.
pub fn list<'de, D, T>(deserializer: D, expected: &str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    read(deserializer, List { word: None, expected, element: PhantomData }).map(Option::unwrap_or_default)
}

/// Reads a list, or the string `word` as `None`; `expected` describes both, with an example in JSON.
///
/// # Errors
/// The value is neither, or an element isn't a `T`.
pub fn word_or_list<'de, D, T>(
    deserializer: D,
    word: &str,
    expected: &str,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    read(deserializer, List { word: Some(word), expected, element: PhantomData })
}

/// Reads a list, or a word in its place.
struct List<'a, T> {
    word: Option<&'a str>,
    expected: &'a str,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Reader<'de> for List<'_, T> {
    /// `None` for the word.
    type Value = Option<Vec<T>>;

    fn scalar(self, found: ShallowValue<'_>) -> Result<Option<Vec<T>>, ValueError> {
        match (&found, self.word) {
            (ShallowValue::Text(text), Some(word)) if *text == word => Ok(None),
            _ => Err(found.instead_of(self.expected)),
        }
    }

    fn list<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Option<Vec<T>>, A::Error> {
        let mut read = Vec::new();
        while let Some(element) = elements.next_element()? {
            read.push(element);
        }
        Ok(Some(read))
    }
}

/// The only [`Visitor`]: reduces serde's twenty methods to the three of a [`Reader`].
struct AnyVisitor<R>(R);

impl<'de, R: Reader<'de>> AnyVisitor<R> {
    fn scalar<E: Error>(self, found: ShallowValue<'_>) -> Result<R::Value, E> {
        self.0.scalar(found).map_err(E::custom)
    }
}

impl<'de, R: Reader<'de>> Visitor<'de> for AnyVisitor<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<R::Value, E> {
        self.scalar(ShallowValue::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<R::Value, E> {
        self.scalar(ShallowValue::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<R::Value, E> {
        self.scalar(ShallowValue::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<R::Value, E> {
        self.scalar(u64::try_from(number).map_or(ShallowValue::Signed(number), ShallowValue::Unsigned))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<R::Value, E> {
        self.scalar(ShallowValue::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<R::Value, E> {
        self.scalar(ShallowValue::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<R::Value, A::Error> {
        self.0.list(elements)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<R::Value, A::Error> {
        self.0.object(map)
    }
}

/// Intercepts the one call that derived code for a struct makes.
struct StructDeserializer<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for StructDeserializer<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        read(self.0, StructReader { names, beside: &[], visitor })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Reads an object into a derived visitor.
pub(crate) struct StructReader<V> {
    pub(crate) names: &'static [&'static str],
    /// Additional names, which are read elsewhere: see [`Key`].
    pub(crate) beside: &'static [&'static str],
    pub(crate) visitor: V,
}

impl<'de, V: Visitor<'de>> Reader<'de> for StructReader<V> {
    type Value = V::Value;

    fn scalar(self, found: ShallowValue<'_>) -> Result<V::Value, ValueError> {
        let example = self.names.first().map_or_else(String::new, |name| format!("{}: ...", quote(name)));
        let any = format!("an object such as {{{example}}}");
        Err(found.instead_of(&expectation(&self.visitor, "struct ").unwrap_or(any)))
    }

    fn object<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        let Self { names, beside, visitor } = self;
        visitor.visit_map(StructMembers { members, names, beside, seen: Vec::new() })
    }
}

/// The value of `#[serde(expecting = "..")]` of a type. Without it, serde's text begins with `default`, which
/// doesn't help the config's author.
pub(crate) fn expectation(visitor: &dyn Expected, default: &str) -> Option<String> {
    let said = visitor.to_string();
    (!said.starts_with(default)).then_some(said)
}

/// The members of an object; each name is checked before derived code sees it.
struct StructMembers<A> {
    members: A,
    names: &'static [&'static str],
    beside: &'static [&'static str],
    seen: Vec<&'static str>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for StructMembers<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = Key { names: self.names, beside: self.beside, seen: &mut self.seen };
        let Some(name) = self.members.next_key_seed(key)? else { return Ok(None) };
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.members.next_value_seed(seed)
    }
}

/// Reads the name of a member if the check accepts it.
pub(crate) struct Name<F>(pub(crate) F);

impl<'de, F: FnOnce(&str) -> Result<(), ValueError>> DeserializeSeed<'de> for Name<F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<F: FnOnce(&str) -> Result<(), ValueError>> Visitor<'_> for Name<F> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, given: &str) -> Result<String, E> {
        (self.0)(given).map_err(E::custom)?;
        Ok(given.to_owned())
    }
}

/// Reads the name of a member: one of `names`, not yet in `seen`, to which it is added.
pub(crate) struct Key<'a> {
    pub(crate) names: &'static [&'static str],
    /// Additional valid names, for hints, which are read elsewhere.
    pub(crate) beside: &'static [&'static str],
    pub(crate) seen: &'a mut Vec<&'static str>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, given: &str) -> Result<&'static str, E> {
        let Some(name) = self.names.iter().copied().find(|name| *name == given) else {
            let known = [self.names, self.beside].concat();
            return Err(E::custom(ValueError::UnknownField { hint: hint(given, &known) }));
        };
        if self.seen.contains(&name) {
            return Err(E::custom(ValueError::GivenTwice));
        }
        self.seen.push(name);
        Ok(name)
    }
}
