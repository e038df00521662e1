//! Devices of the machine's tables: kind and id; the other fields belong to the kind.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use crate::{ranged::Ranged, strict, text::quote, value_error::ValueError};

/// A device that isn't built into the config, such as all virtio devices. Its kind and fields are interpreted by the
/// machine's tables of kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioSection {
    /// Value of `type`.
    pub kind: String,
    /// The device's name. In a `Config` always set.
    pub id: Option<DeviceId>,
    /// Its device number on the PCI bus. `None` for the first free one.
    pub slot: Option<Slot>,
    /// All other fields.
    pub fields: Map<String, Value>,
    /// Base of relative paths in the fields. Set in a `Config`.
    pub directory: PathBuf,
}

impl Serialize for VirtioSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        if let Some(slot) = &self.slot {
            map.serialize_entry("slot", &slot.get())?;
        }
        self.fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// A device number on the PCI bus. 0 is the host bridge.
pub type Slot = Ranged<1, 31>;

/// Name of a virtio device in messages, its thread's name and its counters: 1 to 32 letters, digits, `-`, `_`
/// and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeviceId(String);

/// Maximum length of an id: enough for a UUID without dashes.
const ID_LEN: usize = 32;

impl DeviceId {
    /// The default id of a device: its kind and a number.
    pub(crate) fn numbered(kind: &str, number: usize) -> DeviceId {
        DeviceId(format!("{kind}{number}"))
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<DeviceId, ValueError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match (1..=ID_LEN).contains(&text.len()) && text.chars().all(is_good) {
            true => Ok(DeviceId(text.to_owned())),
            false => Err(ValueError::BadId { text: quote(text) }),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
        strict::text(deserializer, "an id such as \"root\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_letters_digits_and_marks_is_taken() {
        assert_eq!("root.disk-1_a".parse::<DeviceId>().unwrap().as_str(), "root.disk-1_a");
    }

    #[test]
    fn id_empty_long_or_with_a_slash_is_refused() {
        let is_refused = |text: &str| text.parse::<DeviceId>().is_err();
        assert!(is_refused("") && is_refused(&"x".repeat(33)) && is_refused("a/b") && is_refused("é"));
    }
}
