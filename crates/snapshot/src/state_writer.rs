//! Writes a state file.

use std::collections::BTreeSet;

use crate::format::{Extent, HEADER_LEN, Header, RECORD_LEN, Record, crc};
use crate::limits::{MAX_SECTION_LEN, MAX_STATE_LEN};
use crate::manifest::{MANIFEST, MANIFEST_VERSION, Manifest, Section};
use crate::section_name::{SectionKind, SectionName};
use crate::{FieldWriter, FormatError, State};

/// Collects the sections of a machine.
#[derive(Debug, Default)]
pub struct StateWriter {
    sections: Vec<Written>,
}

#[derive(Debug)]
struct Written {
    name: SectionName,
    version: u16,
    min_reader: u16,
    is_skippable: bool,
    bytes: Vec<u8>,
}

impl StateWriter {
    /// A state without sections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the state of a part. A reader that doesn't know the part refuses the file.
    pub fn add<T: State>(&mut self, instance: u32, state: &T) -> &mut Self {
        self.push(instance, state, false)
    }

    /// Adds the state of a part that a reader may ignore.
    pub fn add_skippable<T: State>(&mut self, instance: u32, state: &T) -> &mut Self {
        self.push(instance, state, true)
    }

    /// The sections added so far, for the manifest.
    pub fn sections(&self) -> Vec<Section> {
        let section = |written: &Written| {
            let Written { name: SectionName { kind, instance }, version, .. } = *written;
            Section { kind, instance, version }
        };
        self.sections.iter().map(section).collect()
    }

    /// The state file, with the manifest as its first section.
    ///
    /// # Errors
    /// Two sections have the same name, the file or a part of it is too long, or the manifest isn't valid or lists other sections than
    /// those added.
    pub fn finish(self, manifest: &Manifest) -> Result<Vec<u8>, FormatError> {
        manifest.check_sections(&self.sections())?;
        let first = Written {
            name: MANIFEST,
            version: MANIFEST_VERSION,
            min_reader: MANIFEST_VERSION,
            is_skippable: false,
            bytes: manifest.to_json()?.into_bytes(),
        };
        let sections: Vec<Written> = std::iter::once(first).chain(self.sections).collect();
        let mut names = BTreeSet::new();
        if let Some(repeated) = sections.iter().find(|section| !names.insert(section.name)) {
            return Err(FormatError::Repeated(repeated.name));
        }
        encode(&sections)
    }

    fn push<T: State>(&mut self, instance: u32, state: &T, is_skippable: bool) -> &mut Self {
        let kind = const {
            assert!(T::VERSION >= 1 && T::MIN_READER >= 1 && T::MIN_READER <= T::VERSION);
            SectionKind::new(T::KIND).expect("State::KIND is a kind of section")
        };
        let mut fields = FieldWriter::new();
        state.save(&mut fields);
        self.sections.push(Written {
            name: SectionName { kind, instance },
            version: T::VERSION,
            min_reader: T::MIN_READER,
            is_skippable,
            bytes: fields.into_bytes(),
        });
        self
    }
}

/// Lays the sections out: header, directory, and each section directly after the one before it.
fn encode(sections: &[Written]) -> Result<Vec<u8>, FormatError> {
    let directory = Extent { offset: HEADER_LEN as u64, len: (sections.len() * RECORD_LEN) as u64 };
    let mut offset = directory.offset + directory.len;
    let mut records = FieldWriter::new();
    for section in sections {
        let len = section.bytes.len() as u64;
        if len > MAX_SECTION_LEN {
            return Err(FormatError::LongSection { name: section.name, len });
        }
        let record = Record {
            name: section.name,
            version: section.version,
            min_reader: section.min_reader,
            is_skippable: section.is_skippable,
            extent: Extent { offset, len },
            crc: crc(&section.bytes),
        };
        record.write(&mut records);
        offset += len;
    }
    if offset > MAX_STATE_LEN {
        return Err(FormatError::LongState { len: offset });
    }
    let records = records.into_bytes();
    let header = Header {
        // Fewer than `MAX_SECTIONS`, because the manifest, of at most 1 MiB, has more than 64 bytes for each.
        sections: sections.len() as u32,
        directory,
        directory_crc: crc(&records),
        file_len: offset,
    };
    let bodies = sections.iter().map(|section| section.bytes.as_slice());
    let parts: Vec<&[u8]> = [records.as_slice()].into_iter().chain(bodies).collect();
    let mut file = header.to_bytes().to_vec();
    file.extend(parts.concat());
    Ok(file)
}
