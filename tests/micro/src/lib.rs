#![forbid(unsafe_code)]

//! Output that the tests in `tests/micro` expect of the bare-metal guests of `driver::guests`.

/// The first `lines` lines that the flood guests print.
pub fn flood_lines(lines: u32) -> String {
    (0..lines).map(|line| format!("{line:08x}\n")).collect()
}

/// The hash function of the guests: 32-bit FNV-1a.
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test vectors of the FNV authors.
    #[test]
    fn fnv1a_gives_the_published_value() {
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
