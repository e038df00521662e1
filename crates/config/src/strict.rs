//! Reading JSON through serde with messages of our own: what was expected, what was found, which field was meant.
//!
//! serde's derived code knows the fields of a struct and hands them to its deserializer, so one wrapper, [`object`],
//! gives every derived struct the same messages. Unknown and repeated names are refused while the *name* is being
//! read: the error then carries the name in its path and points at it.

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

/// A JSON value that turned up; of a list or an object only that it is one.
pub(crate) enum Found<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    /// With a point or an exponent, or beyond 64 bits.
    Float(f64),
    Text(&'a str),
    List,
    Object,
}

impl Found<'_> {
    /// The error for finding this where `expected` belongs.
    pub(crate) fn instead_of(&self, expected: &str) -> ValueError {
        ValueError::WrongType { expected: expected.to_owned(), found: self.to_string() }
    }
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Null => f.write_str("null"),
            Found::Bool(value) => write!(f, "{value}"),
            Found::Unsigned(number) => write!(f, "the number {number}"),
            Found::Signed(number) => write!(f, "the number {number}"),
            // Debug keeps the point of 1.0, which is what is wrong with it.
            Found::Float(number) => write!(f, "the number {number:?}"),
            Found::Text(text) => write!(f, "the string {}", quote(text)),
            Found::List => f.write_str("a list"),
            Found::Object => f.write_str("an object"),
        }
    }
}

/// Makes a value of whatever JSON value turns up.
pub(crate) trait Reader<'de>: Sized {
    type Value;

    /// Takes anything but the elements of a list or the members of an object.
    fn scalar(self, found: Found<'_>) -> Result<Self::Value, ValueError>;

    /// Takes an object; unless told otherwise, as something unexpected.
    fn object<A: MapAccess<'de>>(self, _map: A) -> Result<Self::Value, A::Error> {
        self.scalar(Found::Object).map_err(A::Error::custom)
    }

    /// Takes a list; unless told otherwise, as something unexpected.
    fn list<A: SeqAccess<'de>>(self, _elements: A) -> Result<Self::Value, A::Error> {
        self.scalar(Found::List).map_err(A::Error::custom)
    }
}

/// Reads one value with `reader`.
pub(crate) fn read<'de, D: Deserializer<'de>, R: Reader<'de>>(d: D, reader: R) -> Result<R::Value, D::Error> {
    d.deserialize_any(AnyVisitor(reader))
}

/// Reads one value that is neither list nor object with `read_found`.
pub(crate) fn value<'de, D, T, F>(deserializer: D, read_found: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(Found<'_>) -> Result<T, ValueError>,
{
    struct Scalar<F>(F);

    impl<T, F: FnOnce(Found<'_>) -> Result<T, ValueError>> Reader<'_> for Scalar<F> {
        type Value = T;

        fn scalar(self, found: Found<'_>) -> Result<T, ValueError> {
            (self.0)(found)
        }
    }

    read(deserializer, Scalar(read_found))
}

/// Reads a string that parses as a `T`; `expected` says what that is.
pub(crate) fn text<'de, D, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = ValueError>,
{
    value(deserializer, |found| match found {
        Found::Text(text) => text.parse(),
        other => Err(other.instead_of(expected)),
    })
}

/// Reads a string that parses as a `T` of another crate; `expected` says what that is, with an example in JSON.
///
/// # Errors
/// It is no string, or one that doesn't parse.
pub fn parsed<'de, D, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = value(deserializer, |found| match found {
        Found::Text(text) => Ok(text.to_owned()),
        other => Err(other.instead_of(expected)),
    })?;
    text.parse().map_err(D::Error::custom)
}

/// Reads a field that may be absent but not null: leaving it out is the one way to ask for the default. For serde's
/// `deserialize_with`, beside `default`.
///
/// # Errors
/// Those of `T`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a derived struct, with every name known and given at most once.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(StructDeserializer(deserializer))
}

/// Reads [`present`]'s field for a derived struct.
pub(crate) fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

/// Reads [`present`]'s field for a truth value.
pub(crate) fn present_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    value(deserializer, |found| match found {
        Found::Bool(value) => Ok(Some(value)),
        other => Err(other.instead_of("true or false")),
    })
}

/// Reads an object as the derived struct `S`, and that as the `T` which it describes; `expected` says what that is.
pub(crate) fn checked<'de, D, S, T>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    S: Deserialize<'de>,
    T: TryFrom<S, Error = ValueError>,
{
    struct Checked<'a, S, T>(&'a str, PhantomData<(S, T)>);

    impl<'de, S: Deserialize<'de>, T: TryFrom<S, Error = ValueError>> Reader<'de> for Checked<'_, S, T> {
        type Value = T;

        fn scalar(self, found: Found<'_>) -> Result<T, ValueError> {
            Err(found.instead_of(self.0))
        }

        fn object<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            let section: S = object(MapAccessDeserializer::new(members))?;
            section.try_into().map_err(A::Error::custom)
        }
    }

    read(deserializer, Checked(expected, PhantomData))
}

/// Reads a list; `expected` says of what, with an example in JSON.
///
/// # Errors
/// It is no list, or an element is no `T`.
pub fn list<'de, D, T>(deserializer: D, expected: &str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    read(deserializer, List { word: None, expected, element: PhantomData }).map(Option::unwrap_or_default)
}

/// Reads a list, or the string `word` in place of one, which is `None`; `expected` says so, with an example in JSON.
///
/// # Errors
/// It is neither, or an element is no `T`.
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

/// Reads a list, or a word in place of one.
struct List<'a, T> {
    word: Option<&'a str>,
    expected: &'a str,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Reader<'de> for List<'_, T> {
    /// `None` for the word.
    type Value = Option<Vec<T>>;

    fn scalar(self, found: Found<'_>) -> Result<Option<Vec<T>>, ValueError> {
        match (&found, self.word) {
            (Found::Text(text), Some(word)) if *text == word => Ok(None),
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

/// The one [`Visitor`]: turns serde's twenty calls into the three of a [`Reader`].
struct AnyVisitor<R>(R);

impl<'de, R: Reader<'de>> AnyVisitor<R> {
    fn scalar<E: Error>(self, found: Found<'_>) -> Result<R::Value, E> {
        self.0.scalar(found).map_err(E::custom)
    }
}

impl<'de, R: Reader<'de>> Visitor<'de> for AnyVisitor<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<R::Value, E> {
        self.scalar(Found::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<R::Value, E> {
        self.scalar(Found::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<R::Value, E> {
        self.scalar(Found::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<R::Value, E> {
        self.scalar(u64::try_from(number).map_or(Found::Signed(number), Found::Unsigned))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<R::Value, E> {
        self.scalar(Found::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<R::Value, E> {
        self.scalar(Found::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<R::Value, A::Error> {
        self.0.list(elements)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<R::Value, A::Error> {
        self.0.object(map)
    }
}

/// Catches the one call that derived code for a struct makes.
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
    /// Further names, which somebody else has read: see [`Key`].
    pub(crate) beside: &'static [&'static str],
    pub(crate) visitor: V,
}

impl<'de, V: Visitor<'de>> Reader<'de> for StructReader<V> {
    type Value = V::Value;

    fn scalar(self, found: Found<'_>) -> Result<V::Value, ValueError> {
        let example = self.names.first().map_or_else(String::new, |name| format!("{}: ...", quote(name)));
        let any = format!("an object such as {{{example}}}");
        Err(found.instead_of(&expectation(&self.visitor, "struct ").unwrap_or(any)))
    }

    fn object<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        let Self { names, beside, visitor } = self;
        visitor.visit_map(StructMembers { members, names, beside, seen: Vec::new() })
    }
}

/// What `#[serde(expecting = "..")]` says at a type; without that, what serde says begins with `default`, and is no use to
/// whoever wrote the config.
pub(crate) fn expectation(visitor: &dyn Expected, default: &str) -> Option<String> {
    let said = visitor.to_string();
    (!said.starts_with(default)).then_some(said)
}

/// The members of an object, each name checked before the derived code sees it.
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

/// Reads the name of a member, any that the check accepts.
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

/// Reads the name of a member: one of `names`, and not yet `seen`, where it is then noted.
pub(crate) struct Key<'a> {
    pub(crate) names: &'static [&'static str],
    /// Names that may be meant, too, but have been read by somebody else.
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
