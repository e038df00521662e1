#![forbid(unsafe_code)]

//! Bare-metal guests: kernels of a few instructions that do one thing each, whose sources are in `resources/guests`.
//!
//! Each constant is the path of an ELF that `--kernel` takes. The tests that boot them are in `tests/micro`.

macro_rules! guest {
    ($name:literal) => {
        concat!(env!("OUT_DIR"), "/", $name, ".elf")
    };
}

/// Says "ready", echoes what is typed, says "bye" and resets at Ctrl-D.
pub const ECHO: &str = guest!("echo");
/// Says "ready" and halts for ever.
pub const HALT: &str = guest!("halt");
/// Says "ready" and dies of what is typed: `t` a triple fault, `i` an instruction, `j` a jump out of memory.
pub const CRASH: &str = guest!("crash");
/// Prints its memory map, looks at its BSS and touches its last RAM.
pub const MEMORY: &str = guest!("memory");
/// Prints its command line and the hash of its initrd. Has a 64-bit and a PVH entry.
pub const PARAMS: &str = guest!("params");
/// Prints numbered lines for ever.
pub const FLOOD: &str = guest!("flood");
/// Prints 1000 numbered lines and resets.
pub const FLOOD_1000: &str = guest!("flood-1000");
/// Prints 20000 numbered lines and resets.
pub const FLOOD_20000: &str = guest!("flood-20000");
/// Says "ready", reads 64 KiB, says their hash and resets.
pub const HASH_64K: &str = guest!("hash-64k");
/// The same, and prints a "y" for each byte.
pub const HASH_64K_CHATTY: &str = guest!("hash-64k-chatty");

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
