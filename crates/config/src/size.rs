//! Sizes with units: `"512M"`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{digits::digits_and_unit, strict, text::quote, value_error::ValueError};

/// The example in messages about sizes.
const LIKE: &str = "\"512M\"";

/// A number of bytes, written as digits and a binary unit: `"64K"`, `"512M"`, `"1G"`, `"1T"`, also `"64KiB"`;
/// bytes without a unit.
///
/// It is printed with the largest exact unit, and the output can be parsed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// 1 KiB.
    pub const KIB: ByteSize = ByteSize(1 << 10);
    /// 1 MiB.
    pub const MIB: ByteSize = ByteSize(1 << 20);

    /// `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Units in descending order, so that printing uses the first one that divides the size.
const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<ByteSize, ValueError> {
        let owned = || text.to_owned();
        let (digits, unit) = digits_and_unit(text, "a size", LIKE)?;
        let shift = shift_of(unit).ok_or_else(|| ValueError::UnknownUnit {
            text: owned(),
            unit: unit.to_owned(),
            known: "K, M, G, T (or KiB, MiB, GiB, TiB) or none for bytes",
        })?;
        // Only the range can be wrong now; 16777215T is the last whole T below 2^64.
        let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        number
            .map(ByteSize)
            .ok_or_else(|| ValueError::TooLarge { value: quote(text), most: "16777215T".to_owned() })
    }
}

/// The exponent of 2 for `unit`.
fn shift_of(unit: &str) -> Option<u32> {
    if unit.is_empty() {
        return Some(0);
    }
    let letter = unit.strip_suffix("iB").unwrap_or(unit);
    UNITS.iter().find(|(name, _)| *name == letter).map(|(_, shift)| *shift)
}

/// Size of a guest's memory: a multiple of 4 KiB, from 4 KiB to 4096 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemorySize(ByteSize);

impl MemorySize {
    /// One page, enough for a flat image in real mode. Larger requirements of an image are checked when it is
    /// read.
    pub const MIN: MemorySize = MemorySize(Self::PAGE);
    /// 1 MiB: everything below belongs to the PC, so that a Linux kernel with less has no memory of its own.
    pub const LINUX_MIN: MemorySize = MemorySize(ByteSize::MIB);
    /// 2^52 bytes: the maximum that x86-64 can address (AMD64 APM volume 2, §5.1). A sum of two sizes fits 64
    /// bits.
    pub const MAX: MemorySize = MemorySize(ByteSize::from_bytes(1 << 52));
    /// 256 MiB: a stock kernel, its unpacked initramfs and a shell.
    pub const DEFAULT: MemorySize = MemorySize(ByteSize::from_bytes(256 << 20));
    /// KVM's granularity for guest memory (KVM api.rst KVM_SET_USER_MEMORY_REGION).
    const PAGE: ByteSize = ByteSize::from_bytes(4 << 10);

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }

    /// Validates `size`, which messages show as `written`.
    fn checked(size: ByteSize, written: String) -> Result<MemorySize, ValueError> {
        let (bytes, page) = (size.bytes(), Self::PAGE.bytes());
        if size < Self::MIN.0 {
            return Err(ValueError::TooSmall { value: written, least: Self::MIN.to_string() });
        }
        if size > Self::MAX.0 {
            return Err(ValueError::TooLarge { value: written, most: Self::MAX.to_string() });
        }
        if !bytes.is_multiple_of(page) {
            let nearest = ByteSize(bytes - bytes % page);
            return Err(ValueError::NotAMultiple {
                value: written,
                unit: Self::PAGE.to_string(),
                nearest: nearest.to_string(),
            });
        }
        Ok(MemorySize(size))
    }
}

impl Default for MemorySize {
    fn default() -> MemorySize {
        MemorySize::DEFAULT
    }
}

impl TryFrom<ByteSize> for MemorySize {
    type Error = ValueError;

    fn try_from(size: ByteSize) -> Result<MemorySize, ValueError> {
        MemorySize::checked(size, size.to_string())
    }
}

impl From<MemorySize> for ByteSize {
    fn from(size: MemorySize) -> ByteSize {
        size.0
    }
}

impl FromStr for MemorySize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<MemorySize, ValueError> {
        match text.parse() {
            Ok(size) => MemorySize::checked(size, quote(text)),
            // The limit of memory is the lower one, so it is reported.
            Err(ValueError::TooLarge { value, .. }) => {
                Err(ValueError::TooLarge { value, most: MemorySize::MAX.to_string() })
            }
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Both kinds of sizes have the same JSON notation.
macro_rules! json_size {
    ($size:ident, $description:literal) => {
        impl Serialize for $size {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $size {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$size, D::Error> {
                strict::text(deserializer, "a size such as \"512M\"")
            }
        }

        impl JsonSchema for $size {
            fn schema_name() -> Cow<'static, str> {
                stringify!($size).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": $description,
                    "type": "string",
                    "pattern": "^[0-9]+([KMGT](iB)?)?$",
                })
            }
        }
    };
}

json_size!(ByteSize, "Digits and a binary unit: \"64K\", \"512M\", \"1G\", \"1T\", or plain bytes.");
json_size!(
    MemorySize,
    "Digits and a binary unit, \"4K\" to \"4096T\", a multiple of 4 KiB: \"512M\", \"1G\"."
);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<ByteSize>().unwrap_err().to_string()
    }

    fn memory_refusal(text: &str) -> String {
        text.parse::<MemorySize>().unwrap_err().to_string()
    }

    #[test]
    fn size_every_unit_is_binary() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(ByteSize::bytes);
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("64K"), Ok(64 << 10));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        assert_eq!(bytes("1T"), Ok(1 << 40));
        assert_eq!(bytes("64KiB"), Ok(64 << 10));
        assert_eq!(bytes("1TiB"), Ok(1 << 40));
        assert_eq!(bytes("0"), Ok(0));
    }

    #[test]
    fn size_prints_the_largest_exact_unit() {
        assert_eq!(ByteSize(0).to_string(), "0");
        assert_eq!(ByteSize(1023).to_string(), "1023");
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536M");
        assert_eq!(ByteSize(1 << 63).to_string(), "8388608T");
        assert_eq!(ByteSize(u64::MAX).to_string(), "18446744073709551615");
    }

    #[test]
    fn size_unknown_unit_names_it_and_lists_ours() {
        let list = "use K, M, G, T (or KiB, MiB, GiB, TiB) or none for bytes";
        assert_eq!(refusal("12Q"), format!("\"12Q\" has the unknown unit \"Q\", {list}"));
        // MB might mean a power of 10: we don't guess.
        assert_eq!(refusal("512MB"), format!("\"512MB\" has the unknown unit \"MB\", {list}"));
        assert_eq!(refusal("1iB"), format!("\"1iB\" has the unknown unit \"iB\", {list}"));
        assert_eq!(refusal("1Mé"), format!("\"1Mé\" has the unknown unit \"Mé\", {list}"));
    }

    #[test]
    fn size_overflow_in_the_product_names_the_limit() {
        assert_eq!(refusal("16777216T"), "\"16777216T\" is too large, at most 16777215T");
    }

    #[test]
    fn size_overflow_in_the_digits_names_the_limit() {
        assert_eq!(
            refusal("18446744073709551616"),
            "\"18446744073709551616\" is too large, at most 16777215T"
        );
    }

    #[test]
    fn size_negative_is_refused() {
        assert_eq!(refusal("-1M"), "\"-1M\" is negative, write a number above 0");
    }

    #[test]
    fn size_fraction_asks_for_a_smaller_unit() {
        assert_eq!(refusal("1.5G"), "\"1.5G\" is a fraction, write a whole number of a smaller unit");
    }

    #[test]
    fn size_white_space_is_refused() {
        assert_eq!(refusal("512 M"), "\"512 M\" contains white space, write \"512M\" without any");
        assert_eq!(refusal("512M\n"), "\"512M\\n\" contains white space, write \"512M\" without any");
    }

    #[test]
    fn size_without_digits_shows_an_example() {
        assert_eq!(refusal(""), "\"\" is not a size, write one such as \"512M\"");
        assert_eq!(refusal("M"), "\"M\" is not a size, write one such as \"512M\"");
        assert_eq!(refusal("-"), "\"-\" is not a size, write one such as \"512M\"");
        assert_eq!(refusal("+1M"), "\"+1M\" is not a size, write one such as \"512M\"");
    }

    #[test]
    fn memory_below_the_least_names_it() {
        assert_eq!(memory_refusal("0"), "\"0\" is too small, at least 4K");
        assert_eq!(memory_refusal("1"), "\"1\" is too small, at least 4K");
        assert_eq!(memory_refusal("3K"), "\"3K\" is too small, at least 4K");
    }

    #[test]
    fn memory_at_its_limits_is_accepted() {
        assert_eq!("4K".parse(), Ok(MemorySize::MIN));
        assert_eq!("4096T".parse(), Ok(MemorySize::MAX));
    }

    #[test]
    fn memory_above_the_most_names_it() {
        assert_eq!(memory_refusal("4097T"), "\"4097T\" is too large, at most 4096T");
        assert_eq!(memory_refusal("99999999T"), "\"99999999T\" is too large, at most 4096T");
    }

    #[test]
    fn memory_between_pages_names_the_nearest_below() {
        let found = memory_refusal("1052673");
        assert_eq!(found, "\"1052673\" is not a multiple of 4K, the nearest below is \"1028K\"");
    }
}
