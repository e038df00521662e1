//! What both ends of a test's connection know: the bytes that go through it, and pieces of random lengths to move them in.
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

/// The longest piece that is read or written at once, in bytes: more than a packet of any kind here.
const PIECE_LEN: usize = 192 << 10;

/// An endless row of bytes, always the same for the same seed, in which a byte that is lost, doubled or out of its place
/// shows: xorshift64 of Marsaglia's, eight bytes a step.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    /// Bytes of the state that were given.
    given: usize,
}

impl Pattern {
    /// The row with this number.
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero; the multiplier is that of the golden ratio.
        Self { state: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, given: 8 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Fills `bytes` with the next ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.given == 8 {
                self.next();
                self.given = 0;
            }
            let word = self.state.to_le_bytes();
            let len = rest.len().min(8 - self.given);
            rest[..len].copy_from_slice(&word[self.given..self.given + len]);
            self.given += len;
            rest = &mut rest[len..];
        }
    }

    /// Whether `bytes` are the next ones.
    pub fn matches(&mut self, bytes: &[u8]) -> bool {
        let mut expected = [0; 4096];
        bytes.chunks(expected.len()).all(|piece| {
            let expected = &mut expected[..piece.len()];
            self.fill(expected);
            expected == piece
        })
    }

    /// From 1 to [`PIECE_LEN`], short ones as often as long ones.
    fn piece_len(&mut self) -> usize {
        let random = self.next();
        let most = PIECE_LEN >> (random % 18);
        1 + (random >> 32) as usize % most.max(1)
    }
}

/// Writes the first `len` bytes of the row, in pieces of random lengths.
///
/// # Errors
/// Those of `into`.
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

/// Reads to the end, in pieces of random lengths, and says how many bytes came.
///
/// # Errors
/// Those of `from`, or a byte isn't that of the row.
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
            let problem = format!("another byte than was sent, among the {here} behind the first {taken}");
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
