//! The fixed parts of a state file: its header and its directory. All numbers are little-endian.
//!
//! ```text
//! header     0  magic            "VMMSTATE"
//!            8  format           u16
//!           10  header length    u16, 48
//!           12  sections         u32
//!           16  directory offset u64
//!           24  directory length u64, 48 for each section
//!           32  file length      u64
//!           40  directory CRC    u32
//!           44  header CRC       u32, of what precedes it
//!
//! directory  0  kind             16 characters, padded with zeros
//! entry     16  instance         u32
//!           20  version          u16
//!           22  oldest reader    u16
//!           24  flags            u32, bit 0: may be skipped
//!           28  offset           u64
//!           36  length           u64
//!           44  section CRC      u32
//! ```
//!
//! All formats, also those to come, have the magic number, the format and the header's length at these places, and the header's CRC in its
//! last four bytes, so that any reader can distinguish a newer file from a damaged one. CRCs are those of IEEE 802.3.

use std::ops::Range;

use crate::format_error::FormatError;
use crate::limits::{FORMAT, OLDEST_FORMAT};
use crate::section_name::{SectionKind, SectionName};
use crate::{FieldReader, FieldWriter, StateError};

pub(crate) const HEADER_LEN: usize = 48;
pub(crate) const RECORD_LEN: usize = 48;

const MAGIC: [u8; 8] = *b"VMMSTATE";
/// Where the header's length ends in all formats.
const PREFIX_LEN: usize = 12;
/// Longest header of any format.
const MAX_HEADER_LEN: usize = 4096;
const CRC_LEN: usize = 4;

/// A reader that doesn't know the section may ignore it.
const FLAG_SKIPPABLE: u32 = 1 << 0;

/// What the header says, apart from what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sections: u32,
    pub(crate) directory: Extent,
    pub(crate) directory_crc: u32,
    pub(crate) file_len: u64,
}

/// A range of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: SectionName,
    pub(crate) version: u16,
    pub(crate) min_reader: u16,
    pub(crate) is_skippable: bool,
    pub(crate) extent: Extent,
    pub(crate) crc: u32,
}

/// The checksum of a part of the file.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Checks that this program reads files of `format`.
pub(crate) fn check_format(format: u64) -> Result<(), FormatError> {
    if format > FORMAT.into() {
        return Err(FormatError::NewerFormat { format });
    }
    if format < OLDEST_FORMAT.into() {
        return Err(FormatError::OlderFormat { format });
    }
    Ok(())
}

impl Extent {
    /// The place in a file of `file_len` bytes, if the file has it.
    pub(crate) fn within(self, file_len: usize) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        (end <= file_len).then_some(start..end)
    }
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut fields = FieldWriter::new();
        fields.array(&MAGIC);
        fields.u16(FORMAT);
        fields.u16(HEADER_LEN as u16);
        fields.u32(self.sections);
        fields.u64(self.directory.offset);
        fields.u64(self.directory.len);
        fields.u64(self.file_len);
        fields.u32(self.directory_crc);
        let mut bytes = fields.into_bytes();
        bytes.extend(crc(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields of a header have 48 bytes")
    }

    /// The header at the beginning of `file`.
    ///
    /// # Errors
    /// The file is something else, is damaged, or has a format that isn't read.
    pub(crate) fn of(file: &[u8]) -> Result<Self, FormatError> {
        if !file.starts_with(&MAGIC) {
            return Err(FormatError::NotState);
        }
        let truncated = || FormatError::Damaged("it ends within its header".to_owned());
        let mut prefix = FieldReader::new(file.get(MAGIC.len()..PREFIX_LEN).ok_or_else(truncated)?);
        let format = prefix.u16("format").map_err(damaged)?;
        let len = usize::from(prefix.u16("header length").map_err(damaged)?);
        if !(PREFIX_LEN + CRC_LEN..=MAX_HEADER_LEN).contains(&len) {
            return Err(FormatError::Damaged(format!("its header has {len} bytes")));
        }
        let header = file.get(..len).ok_or_else(truncated)?;
        let (covered, stored) = header.split_at(len - CRC_LEN);
        if crc(covered).to_le_bytes() != stored {
            return Err(FormatError::Damaged("the checksum of its header doesn't match".to_owned()));
        }
        check_format(format.into())?;
        let mut fields = FieldReader::new(&covered[PREFIX_LEN..]);
        let header = Self::read(&mut fields).map_err(damaged)?;
        fields.finish().map_err(damaged)?;
        Ok(header)
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            sections: fields.u32("sections")?,
            directory: Extent {
                offset: fields.u64("directory offset")?,
                len: fields.u64("directory length")?,
            },
            file_len: fields.u64("file length")?,
            directory_crc: fields.u32("directory checksum")?,
        })
    }
}

impl Record {
    pub(crate) fn write(&self, fields: &mut FieldWriter) {
        fields.array(&self.name.kind.to_bytes());
        fields.u32(self.name.instance);
        fields.u16(self.version);
        fields.u16(self.min_reader);
        fields.u32(if self.is_skippable { FLAG_SKIPPABLE } else { 0 });
        fields.u64(self.extent.offset);
        fields.u64(self.extent.len);
        fields.u32(self.crc);
    }

    pub(crate) fn read(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let kind = fields.array("kind")?;
        let kind = SectionKind::from_bytes(kind)
            .ok_or_else(|| StateError::new("kind", format!("\"{}\" is not one", kind.escape_ascii())))?;
        let name = SectionName { kind, instance: fields.u32("instance")? };
        let within = |error: StateError| error.within(format!("section {name}"));
        let version = fields.u16("version").map_err(within)?;
        let min_reader = fields.u16("oldest reader").map_err(within)?;
        if !(1..=version).contains(&min_reader) {
            let message = format!("{min_reader} is not between 1 and the version, {version}");
            return Err(within(StateError::new("oldest reader", message)));
        }
        let flags = fields.u32("flags").map_err(within)?;
        if flags & !FLAG_SKIPPABLE != 0 {
            return Err(within(StateError::new("flags", format!("{flags:#x} has unknown bits"))));
        }
        let extent = Extent {
            offset: fields.u64("offset").map_err(within)?,
            len: fields.u64("length").map_err(within)?,
        };
        let crc = fields.u32("checksum").map_err(within)?;
        Ok(Self { name, version, min_reader, is_skippable: flags == FLAG_SKIPPABLE, extent, crc })
    }
}

/// The error of a field of the header or the directory.
pub(crate) fn damaged(error: StateError) -> FormatError {
    FormatError::Damaged(error.to_string())
}
