//! The id of a snapshot.

use std::{fmt, io};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// Id of a snapshot: 128 random bits, written as 32 digits of `0-9a-f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId([u8; 16]);

impl SnapshotId {
    /// A new id.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // Up to 256 bytes come whole (getrandom(2)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(bytes))
    }

    /// The id with these bits, most significant byte first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = is_id.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        let refused = || format!("{text:?} is not an id: 32 digits of 0-9 and a-f");
        parsed.map(|bits| Self(bits.to_be_bytes())).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_has_all_its_digits() {
        let id = SnapshotId::from_bytes([0, 1, 0xab, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.to_string(), "0001ab030405060708090a0b0c0d0e0f");
        assert_eq!(SnapshotId::try_from(id.to_string()), Ok(id));
    }

    #[test]
    fn id_of_other_digits_is_refused() {
        let refused = |text: &str| SnapshotId::try_from(text.to_owned()).is_err();
        assert!(refused("+001ab030405060708090a0b0c0d0e0f"));
        assert!(refused("0001AB030405060708090a0b0c0d0e0f"));
        assert!(refused("0001ab030405060708090a0b0c0d0e"));
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(SnapshotId::random().unwrap(), SnapshotId::random().unwrap());
    }
}
