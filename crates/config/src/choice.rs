//! Reads derived enums with our own messages: names, some of which have a value.

use serde::de::{
    DeserializeSeed, EnumAccess, Error, IntoDeserializer, MapAccess, VariantAccess, Visitor, value,
};

use crate::{
    strict::{Key, Reader, ShallowValue, expectation},
    text::{hint, one_of},
    value_error::ValueError,
};

/// Reads a derived enum, written as a name, or as an object with one member if the name has a value. Variants
/// must be units or have a single unnamed field.
pub(crate) struct EnumReader<V> {
    pub(crate) names: &'static [&'static str],
    pub(crate) visitor: V,
}

impl<'de, V: Visitor<'de>> Reader<'de> for EnumReader<V> {
    type Value = V::Value;

    fn scalar(self, found: ShallowValue<'_>) -> Result<V::Value, ValueError> {
        let ShallowValue::Text(name) = found else {
            let expected = expectation(&self.visitor, "enum ").unwrap_or_else(|| one_of(self.names));
            return Err(found.instead_of(&expected));
        };
        if !self.names.contains(&name) {
            let hint = hint(name, self.names);
            return Err(ValueError::UnknownName { what: "value", name: name.to_owned(), hint });
        }
        let alone = IntoDeserializer::<value::Error>::into_deserializer(name);
        // The only possible error of a known name on its own.
        self.visitor.visit_enum(alone).map_err(|_| ValueError::NeedsValue { name: name.to_owned() })
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<V::Value, A::Error> {
        let mut seen = Vec::new();
        let Some(name) = members.next_key_seed(Key { names: self.names, beside: &[], seen: &mut seen })?
        else {
            return self.scalar(ShallowValue::Object).map_err(A::Error::custom);
        };
        let value = self.visitor.visit_enum(Chosen { name, members: &mut members })?;
        match members.next_key_seed(Key { names: self.names, beside: &[], seen: &mut seen })? {
            Some(second) => Err(A::Error::custom(ValueError::Both(name, second))),
            None => Ok(value),
        }
    }
}

/// A name whose value is the next of `members`.
struct Chosen<'a, A> {
    name: &'static str,
    members: &'a mut A,
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Chosen<'_, A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), A::Error> {
        seed.deserialize(self.name.into_deserializer()).map(|value| (value, self))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Chosen<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        Err(A::Error::custom(ValueError::TakesNoValue { name: self.name.to_owned() }))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.members.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, A::Error> {
        Err(A::Error::custom(SEVERAL))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, A::Error> {
        Err(A::Error::custom(SEVERAL))
    }
}

/// For programmers who define a variant with several or named fields.
const SEVERAL: &str = "a variant has at most one value";

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::read_fields;

    /// Where a parcel goes.
    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Target {
        Home,
        Shop(u8),
        Desk(u8),
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Parcel {
        target: Option<Target>,
    }

    fn read(json: &str) -> Result<Option<Target>, String> {
        let parcel = read_fields::<Parcel>(&serde_json::from_str(json).unwrap());
        parcel.map(|parcel| parcel.target).map_err(|error| error.to_string())
    }

    fn refusal(json: &str) -> String {
        read(json).unwrap_err()
    }

    #[test]
    fn name_is_read_alone_or_with_its_value() {
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"target": "home"}"#), Ok(Some(Target::Home)));
        assert_eq!(read(r#"{"target": {"shop": 3}}"#), Ok(Some(Target::Shop(3))));
    }

    #[test]
    fn name_unknown_names_the_nearest_or_all() {
        let message = r#"target: unknown value "hom", did you mean "home"?"#;
        assert_eq!(refusal(r#"{"target": "hom"}"#), message);
        let message = r#"target: unknown value "moon", expected one of "home", "shop", "desk""#;
        assert_eq!(refusal(r#"{"target": "moon"}"#), message);
        let message = r#"target.shoq: unknown field, did you mean "shop"?"#;
        assert_eq!(refusal(r#"{"target": {"shoq": 1}}"#), message);
    }

    #[test]
    fn name_with_a_value_missing_or_too_much_shows_the_form() {
        let message = r#"target: "shop" needs a value, write {"shop": ...}"#;
        assert_eq!(refusal(r#"{"target": "shop"}"#), message);
        let message = r#"target: "home" has no value, write "home""#;
        assert_eq!(refusal(r#"{"target": {"home": 1}}"#), message);
        let message = r#"target: "desk" and "shop" exclude each other, keep one"#;
        assert_eq!(refusal(r#"{"target": {"desk": 1, "shop": 2}}"#), message);
    }

    #[test]
    fn value_that_is_no_name_is_refused_with_all() {
        let expected =
            |found: &str| format!("target: expected one of \"home\", \"shop\", \"desk\", found {found}");
        assert_eq!(refusal(r#"{"target": 5}"#), expected("the number 5"));
        assert_eq!(refusal(r#"{"target": null}"#), expected("null"));
        assert_eq!(refusal(r#"{"target": ["home"]}"#), expected("a list"));
        assert_eq!(refusal(r#"{"target": {}}"#), expected("an object"));
    }
}
