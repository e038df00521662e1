//! What a section is called: "virtio.net/2" is the third of its kind.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a kind in the directory, where a shorter one is padded with zeros.
pub(crate) const KIND_LEN: usize = 16;

/// Kind of a section: 1 to 16 characters of `a-z`, `0-9`, `.` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SectionKind([u8; KIND_LEN]);

impl SectionKind {
    /// The kind that is written as `text`, if it is one.
    pub const fn new(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.is_empty() || text.len() > KIND_LEN {
            return None;
        }
        let mut kind = [0; KIND_LEN];
        let mut at = 0;
        while at < text.len() {
            if !is_letter(text[at]) {
                return None;
            }
            kind[at] = text[at];
            at += 1;
        }
        Some(Self(kind))
    }

    /// The kind in a directory's bytes, if they are one.
    pub(crate) fn from_bytes(bytes: [u8; KIND_LEN]) -> Option<Self> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(KIND_LEN);
        let (text, padding) = bytes.split_at(len);
        let is_padded = padding.iter().all(|byte| *byte == 0);
        is_padded.then(|| str::from_utf8(text).ok().and_then(Self::new)).flatten()
    }

    /// The bytes in a directory.
    pub(crate) fn to_bytes(self) -> [u8; KIND_LEN] {
        self.0
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(KIND_LEN);
        str::from_utf8(&self.0[..len]).expect("a kind is ASCII")
    }
}

const fn is_letter(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')
}

impl fmt::Display for SectionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for SectionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl From<SectionKind> for String {
    fn from(kind: SectionKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl TryFrom<String> for SectionKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is not a kind of section: 1 to 16 characters of a-z, 0-9, . and -");
        Self::new(&text).ok_or_else(refused)
    }
}

/// Name of a section, unique in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionName {
    /// What it is the state of.
    pub kind: SectionKind,
    /// Which of the parts of this kind, such as the slot of a device or the number of a vCPU.
    pub instance: u32,
}

impl fmt::Display for SectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind, self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_of_sixteen_characters_is_the_longest() {
        let kind = SectionKind::new("dev.0123456789-x").unwrap();
        assert_eq!(kind.as_str(), "dev.0123456789-x");
        assert_eq!(SectionKind::new("dev.0123456789-xy"), None);
    }

    #[test]
    fn kind_without_characters_is_refused() {
        assert_eq!(SectionKind::new(""), None);
        assert_eq!(SectionKind::from_bytes([0; KIND_LEN]), None);
    }

    #[test]
    fn kind_of_other_characters_is_refused() {
        assert_eq!(["Dev", "a b", "a/0", "é"].map(SectionKind::new), [None; 4]);
    }

    #[test]
    fn kind_in_a_directory_is_padded_with_zeros_only() {
        let kind = SectionKind::new("rtc").unwrap();
        assert_eq!(SectionKind::from_bytes(kind.to_bytes()), Some(kind));
        assert_eq!(SectionKind::from_bytes(*b"rtc\0\0\0\0\0\0\0\0\0\0\0\0x"), None);
        assert_eq!(SectionKind::from_bytes(*b"\0rtc\0\0\0\0\0\0\0\0\0\0\0\0"), None);
    }

    #[test]
    fn name_is_the_kind_and_the_instance() {
        let name = SectionName { kind: SectionKind::new("virtio.net").unwrap(), instance: 2 };
        assert_eq!(name.to_string(), "virtio.net/2");
    }
}
