//! The guest's CPU features, as words.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess},
};

use crate::{
    strict::{self, Reader, ShallowValue},
    value_error::ValueError,
};

/// The baseline of the guest's CPU features, and changes to it: `"host"`, or `["x86-64-v2", "+aes",
/// "-popcnt"]`. The names are checked by the layers above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuFeatures(Vec<Word>);

/// What the messages say is expected.
const EXPECTED: &str =
    "\"host\", a baseline such as \"x86-64-v2\", or a list such as [\"x86-64-v2\", \"+aes\"]";

impl CpuFeatures {
    /// The words in the order of the config, at least one.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|word| word.0.as_str())
    }

    /// The JSON path of word `index`.
    pub fn field(&self, index: usize) -> String {
        if self.0.len() == 1 { "cpus.features".to_owned() } else { format!("cpus.features[{index}]") }
    }
}

/// All features of the host.
impl Default for CpuFeatures {
    fn default() -> Self {
        Self(vec![Word("host".to_owned())])
    }
}

/// A baseline, or a feature with a sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Word(String);

impl FromStr for Word {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Word, ValueError> {
        if text.contains(',') {
            return Err(ValueError::SeveralFeatures { text: text.to_owned() });
        }
        let name = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_name) {
            return Err(ValueError::BadFeature { text: text.to_owned() });
        }
        Ok(Word(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        strict::text(
            deserializer,
            "a baseline such as \"x86-64-v2\", or a feature such as \"+aes\" or \"-aes\"",
        )
    }
}

impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(" "))
    }
}

impl Serialize for CpuFeatures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [word] => word.serialize(serializer),
            words => words.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CpuFeatures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CpuFeatures, D::Error> {
        strict::read(deserializer, FeaturesReader)
    }
}

/// A word or a list of words.
struct FeaturesReader;

impl<'de> Reader<'de> for FeaturesReader {
    type Value = CpuFeatures;

    fn scalar(self, found: ShallowValue<'_>) -> Result<CpuFeatures, ValueError> {
        match found {
            ShallowValue::Text(text) => Ok(CpuFeatures(vec![text.parse()?])),
            other => Err(other.instead_of(EXPECTED)),
        }
    }

    fn list<A: SeqAccess<'de>>(self, mut elements: A) -> Result<CpuFeatures, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = elements.next_element()? {
            words.push(word);
        }
        if words.is_empty() {
            let found = "an empty list".to_owned();
            return Err(A::Error::custom(ValueError::WrongType { expected: EXPECTED.to_owned(), found }));
        }
        Ok(CpuFeatures(words))
    }
}

impl JsonSchema for CpuFeatures {
    fn schema_name() -> Cow<'static, str> {
        "CpuFeatures".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let word = json_schema!({"type": "string", "pattern": "^[+-]?[A-Za-z0-9][A-Za-z0-9_.-]*$"});
        json_schema!({
            "description": "\"host\" or a baseline such as \"x86-64-v2\", and +feature and -feature.",
            "examples": ["host", "x86-64-v2", ["x86-64-v3", "+aes"], ["host", "-avx512f"]],
            "anyOf": [word, {"type": "array", "items": word, "minItems": 1}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<CpuFeatures, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn features_are_a_word_or_a_list_and_are_written_as_such() {
        let written = |json| serde_json::to_string(&read(json).unwrap()).unwrap();
        assert_eq!(written(r#""x86-64-v2""#), r#""x86-64-v2""#);
        assert_eq!(written(r#"["x86-64-v2","+aes","-sse4.2"]"#), r#"["x86-64-v2","+aes","-sse4.2"]"#);
        assert_eq!(read(r#"["host"]"#).unwrap(), CpuFeatures::default());
    }

    #[test]
    fn features_name_the_place_of_a_word() {
        assert_eq!(read(r#"["host", "+aes"]"#).unwrap().field(1), "cpus.features[1]");
        assert_eq!(read(r#""-aes""#).unwrap().field(0), "cpus.features");
    }
}
