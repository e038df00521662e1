//! Reads parts of a file of known length.

use std::io::{self, Read, Seek, SeekFrom};

/// A file and its actual length, against which all offsets and lengths are checked.
pub(crate) struct Reader<'a, F> {
    file: &'a mut F,
    len: u64,
}

impl<'a, F: Read + Seek> Reader<'a, F> {
    pub(crate) fn new(file: &'a mut F) -> io::Result<Self> {
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len })
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether `len` bytes at `offset` are inside the file.
    pub(crate) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Reads `N` bytes. Fails if the file ends earlier.
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads `N` bytes; those beyond the end of the file are 0.
    pub(crate) fn padded<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let inside = self.len.saturating_sub(offset).min(N as u64) as usize;
        self.fill(offset, &mut bytes[..inside])?;
        Ok(bytes)
    }

    /// Fills `bytes` from `offset`.
    pub(crate) fn fill(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(bytes)
    }
}

/// The `N` bytes at `at`, a constant for which the caller's array is long enough.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes makes an array of N bytes")
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}
