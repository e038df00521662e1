//! Test data that both ends of a connection can generate and verify, transferred in pieces of random lengths.
//!
//! ```
//! use guest_agent::Pattern;
//!
//! let mut sent = [0; 100];
//! Pattern::new(7).fill(&mut sent);
//! let mut expected = Pattern::new(7);
//! assert!(expected.matches(&sent[..33]) && expected.matches(&sent[33..]));
//! assert!(!expected.matches(&sent[..1]));
//! ```
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// Maximum length of a read or write in bytes: more than any packet here can hold.
const PIECE_LEN: usize = 192 << 10;

/// An endless sequence of bytes, determined by its seed, in which lost, duplicated and misplaced bytes are detected: Marsaglia's
/// xorshift64, eight bytes per step.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    /// Number of bytes of `state` that have been used.
    used: usize,
}

impl Pattern {
    /// The start of the sequence with this seed.
    pub fn new(seed: u64) -> Self {
        // A state of zero would stay zero. The multiplier is 2^64 divided by the golden ratio.
        Self { state: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, used: 8 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Fills `bytes` with the next bytes of the sequence.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.used == 8 {
                self.next();
                self.used = 0;
            }
            let word = self.state.to_le_bytes();
            let len = rest.len().min(8 - self.used);
            rest[..len].copy_from_slice(&word[self.used..self.used + len]);
            self.used += len;
            rest = &mut rest[len..];
        }
    }

    /// Whether `bytes` are the next bytes of the sequence.
    pub fn matches(&mut self, bytes: &[u8]) -> bool {
        let mut expected = [0; 4096];
        bytes.chunks(expected.len()).all(|piece| {
            let expected = &mut expected[..piece.len()];
            self.fill(expected);
            expected == piece
        })
    }

    /// A random length from 1 to [`PIECE_LEN`], on a logarithmic scale.
    fn piece_len(&mut self) -> usize {
        let random = self.next();
        let most = PIECE_LEN >> (random % 18);
        1 + (random >> 32) as usize % most.max(1)
    }
}

/// Writes the first `len` bytes of the sequence with this seed, in pieces of random lengths.
///
/// # Errors
/// Writing to `into` fails.
pub fn send(into: &mut impl Write, seed: u64, len: u64) -> io::Result<()> {
    let (mut pattern, mut lengths) = (Pattern::new(seed), Pattern::new(!seed));
    let (mut piece, mut left) = (vec![0; PIECE_LEN], len);
    while left > 0 {
        let here = left.min(lengths.piece_len() as u64) as usize;
        pattern.fill(&mut piece[..here]);
        into.write_all(&piece[..here])?;
        left -= here as u64;
    }
    Ok(())
}

/// Reads to the end, in pieces of random lengths, and returns the number of bytes.
///
/// # Errors
/// Reading from `from` fails, or a byte differs from the sequence with this seed.
pub fn take(from: &mut impl Read, seed: u64) -> io::Result<u64> {
    let (mut pattern, mut lengths) = (Pattern::new(seed), Pattern::new(!seed));
    let (mut piece, mut taken) = (vec![0; PIECE_LEN], 0);
    loop {
        let most = lengths.piece_len();
        let here = match from.read(&mut piece[..most]) {
            Ok(0) => return Ok(taken),
            Ok(here) => here,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if !pattern.matches(&piece[..here]) {
            let problem = format!("a wrong byte among the {here} that follow the first {taken}");
            return Err(io::Error::other(problem));
        }
        taken += here as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_sent_are_taken_whole() {
        let mut bytes = Vec::new();
        send(&mut bytes, 3, 1_000_001).unwrap();
        assert_eq!(bytes.len(), 1_000_001);
        assert_eq!(take(&mut bytes.as_slice(), 3).unwrap(), 1_000_001);
    }

    #[test]
    fn byte_that_is_missing_is_seen() {
        let mut bytes = Vec::new();
        send(&mut bytes, 3, 10_000).unwrap();
        bytes.remove(5_000);
        assert!(take(&mut bytes.as_slice(), 3).is_err());
    }

    #[test]
    fn rows_of_two_seeds_differ() {
        let mut bytes = Vec::new();
        send(&mut bytes, 3, 100).unwrap();
        assert!(take(&mut bytes.as_slice(), 4).is_err());
    }
}
