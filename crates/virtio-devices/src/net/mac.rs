//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use vmm_config::parsed;

/// A unicast address other than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub(super) [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts.next().and_then(parse_byte).ok_or_else(|| malformed(text))?;
        }
        if parts.next().is_some() {
            return Err(malformed(text));
        }
        if bytes == [0; 6] {
            return Err(format!(
                "{text} isn't a valid MAC address of a card, choose another or leave it out"
            ));
        }
        if bytes[0] & 1 != 0 {
            let even = bytes[0] & 0xfe;
            return Err(format!("{text} is a multicast address; a unicast one could start with {even:02x}"));
        }
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "an address such as \"52:54:00:12:34:56\"")
    }
}

impl Mac {
    /// A locally administered address (IEEE 802 §8.2) derived from these words.
    pub(super) fn of(words: &[&str]) -> Self {
        // 64-bit FNV-1a with its standard constants.
        let hash = words
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3_u64)
            });
        let [a, b, c, d, e, f, _, _] = hash.to_be_bytes();
        Self([a & 0xfc | 2, b, c, d, e, f])
    }
}

fn parse_byte(text: &str) -> Option<u8> {
    let is_hex = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

fn malformed(text: &str) -> String {
    format!("{text:?} isn't six bytes such as \"52:54:00:12:34:56\"")
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_derived_is_local_of_one_card_and_stable() {
        let mac = Mac::of(&["net0", "tap0"]);
        assert_eq!(mac, Mac::of(&["net0", "tap0"]));
        assert_eq!(mac.0[0] & 3, 2);
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn address_derived_differs_with_each_word() {
        let mac = Mac::of(&["net0", "tap0"]);
        assert_ne!(mac, Mac::of(&["net1", "tap0"]));
        assert_ne!(mac, Mac::of(&["net0", "tap1"]));
    }
}
