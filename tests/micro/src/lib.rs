#![forbid(unsafe_code)]

//! What the bare-metal guests of `driver::guests` say, for the tests in `tests/micro` that boot them.

/// What the first `lines` lines of the floods are.
pub fn flood_lines(lines: u32) -> String {
    (0..lines).map(|line| format!("{line:08x}\n")).collect()
}

/// The hash that the guests compute: FNV-1a of 32 bits.
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the table of test vectors of the FNV's authors.
    #[test]
    fn fnv1a_gives_the_published_value() {
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
