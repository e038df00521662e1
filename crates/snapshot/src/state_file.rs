//! Reads a state file.

use std::fmt;
use std::ops::Range;

use crate::format::{Extent, HEADER_LEN, Header, RECORD_LEN, Record, crc, damaged};
use crate::limits::{MAX_SECTION_LEN, MAX_SECTIONS, MAX_STATE_LEN};
use crate::manifest::{MANIFEST, MANIFEST_VERSION, Manifest, Section};
use crate::section_name::{SectionKind, SectionName};
use crate::{FieldReader, FormatError, State, StateError};

/// A state file whose checksums, directory and manifest are valid. Its sections are taken one by one.
#[derive(Clone, Debug)]
pub struct StateFile {
    bytes: Vec<u8>,
    manifest: Manifest,
    /// In the directory's order, without the manifest.
    sections: Vec<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    record: Record,
    place: Range<usize>,
    is_taken: bool,
}

impl StateFile {
    /// Checks a file: its length, all checksums, then directory and manifest. No section is parsed yet.
    ///
    /// # Errors
    /// It isn't a state file, has a format that isn't read, is damaged, or its manifest lists other sections.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, FormatError> {
        let bytes = bytes.into();
        let mut sections = checked_sections(&bytes)?;
        let is_manifest = |stored: &Stored| stored.record.name == MANIFEST;
        let at = sections.iter().position(is_manifest).ok_or(FormatError::Missing(MANIFEST))?;
        let first = sections.remove(at);
        supported_version(&first.record, MANIFEST_VERSION)?;
        let manifest = Manifest::parse(&bytes[first.place])?;
        let listed: Vec<Section> = sections.iter().map(Stored::listed).collect();
        manifest.check_sections(&listed)?;
        Ok(Self { bytes, manifest, sections })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a state file has at least a header")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The instances of a kind, in ascending order.
    pub fn instances(&self, kind: &str) -> Vec<u32> {
        let names = self.sections.iter().map(|stored| stored.record.name);
        let mut instances: Vec<u32> =
            names.filter(|name| name.kind.as_str() == kind).map(|name| name.instance).collect();
        instances.sort_unstable();
        instances
    }

    /// Loads the state of a part.
    ///
    /// # Errors
    /// There is no such section, its version isn't read, or its fields aren't valid.
    pub fn take<T: State>(&mut self, instance: u32) -> Result<T, FormatError> {
        self.take_if_present(instance)?.ok_or(FormatError::Missing(name_of::<T>(instance)))
    }

    /// Loads the state of a part if it was saved. One of a version that isn't read and that may be skipped counts as not saved.
    ///
    /// # Errors
    /// Its version isn't read, or its fields aren't valid.
    pub fn take_if_present<T: State>(&mut self, instance: u32) -> Result<Option<T>, FormatError> {
        let name = name_of::<T>(instance);
        let Some(stored) = self.sections.iter_mut().find(|stored| stored.record.name == name) else {
            return Ok(None);
        };
        let version = match supported_version(&stored.record, T::VERSION) {
            Ok(version) => version,
            Err(_) if stored.record.is_skippable => return Ok(None),
            Err(error) => return Err(error),
        };
        stored.is_taken = true;
        let mut fields = FieldReader::new(&self.bytes[stored.place.clone()]);
        let load = || {
            let state = T::load(version, &mut fields)?;
            // What a newer version has added may be ignored, or it would have required a newer reader.
            if stored.record.version <= T::VERSION {
                fields.finish()?;
            }
            Ok(state)
        };
        load().map(Some).map_err(|source: StateError| FormatError::Section { name, source })
    }

    /// Ends the loading of a machine.
    ///
    /// # Errors
    /// There is a section that nothing has taken and that may not be skipped.
    pub fn finish(self) -> Result<(), FormatError> {
        match self.sections.iter().find(|stored| !stored.is_taken && !stored.record.is_skippable) {
            None => Ok(()),
            Some(Stored { record: Record { name, version, .. }, .. }) => {
                Err(FormatError::UnknownSection { name: *name, version: *version })
            }
        }
    }
}

impl Stored {
    fn listed(&self) -> Section {
        let Record { name: SectionName { kind, instance }, version, .. } = self.record;
        Section { kind, instance, version }
    }
}

fn name_of<T: State>(instance: u32) -> SectionName {
    let kind = const { SectionKind::new(T::KIND).expect("State::KIND is a kind of section") };
    SectionName { kind, instance }
}

/// The version as which a reader of `newest` reads a section.
fn supported_version(record: &Record, newest: u16) -> Result<u16, FormatError> {
    let Record { name, version, min_reader, .. } = *record;
    if min_reader > newest {
        return Err(FormatError::NewerSection { name, version, newest });
    }
    let oldest = newest.saturating_sub(1).max(1);
    if version < oldest {
        return Err(FormatError::OlderSection { name, version, oldest });
    }
    Ok(version.min(newest))
}

/// The sections of a file in which all checksums match and nothing overlaps.
fn checked_sections(bytes: &[u8]) -> Result<Vec<Stored>, FormatError> {
    let len = bytes.len() as u64;
    if len > MAX_STATE_LEN {
        return Err(FormatError::LongState { len });
    }
    let header = Header::of(bytes)?;
    if header.file_len != len {
        let message = format!("it has {len} bytes, but its header says {}", header.file_len);
        return Err(FormatError::Damaged(message));
    }
    let Header { sections: count, directory, directory_crc, .. } = header;
    if count > MAX_SECTIONS {
        return Err(FormatError::ManySections { count: count.into() });
    }
    let place = directory.within(bytes.len()).ok_or_else(|| outside("the directory", directory))?;
    if u64::from(count) * RECORD_LEN as u64 != directory.len {
        let message = format!("its directory has {} bytes for {count} sections", directory.len);
        return Err(FormatError::Damaged(message));
    }
    let directory_bytes = &bytes[place.clone()];
    if crc(directory_bytes) != directory_crc {
        return Err(FormatError::Damaged("the checksum of its directory doesn't match".to_owned()));
    }
    let mut fields = FieldReader::new(directory_bytes);
    let mut sections = Vec::new();
    for _ in 0..count {
        sections.push(checked(Record::read(&mut fields).map_err(damaged)?, bytes)?);
    }
    fields.finish().map_err(damaged)?;
    check_names(&sections)?;
    check_overlaps(&sections, place)?;
    Ok(sections)
}

/// A section whose length and checksum are right.
fn checked(record: Record, file: &[u8]) -> Result<Stored, FormatError> {
    let Record { name, extent, .. } = record;
    if extent.len > MAX_SECTION_LEN {
        return Err(FormatError::LongSection { name, len: extent.len });
    }
    let place = extent.within(file.len()).ok_or_else(|| outside(&format!("section {name}"), extent))?;
    if crc(&file[place.clone()]) != record.crc {
        return Err(FormatError::Damaged(format!("the checksum of section {name} doesn't match")));
    }
    Ok(Stored { record, place, is_taken: false })
}

fn outside(what: &str, Extent { offset, len }: Extent) -> FormatError {
    FormatError::Damaged(format!("{what}, {len} bytes at {offset}, is beyond its end"))
}

fn check_names(sections: &[Stored]) -> Result<(), FormatError> {
    let mut names: Vec<SectionName> = sections.iter().map(|stored| stored.record.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(FormatError::Repeated(pair[0])),
    }
}

/// A part of the file that no other part may overlap.
#[derive(Clone, Copy)]
enum Part {
    Header,
    Directory,
    Section(SectionName),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => formatter.write_str("the header"),
            Self::Directory => formatter.write_str("the directory"),
            Self::Section(name) => write!(formatter, "section {name}"),
        }
    }
}

/// Whether all parts are apart. One without bytes is apart from everything.
fn check_overlaps(sections: &[Stored], directory: Range<usize>) -> Result<(), FormatError> {
    let fixed = [(0..HEADER_LEN, Part::Header), (directory, Part::Directory)];
    let others = sections.iter().map(|stored| (stored.place.clone(), Part::Section(stored.record.name)));
    let mut parts: Vec<(Range<usize>, Part)> =
        fixed.into_iter().chain(others).filter(|(place, _)| !place.is_empty()).collect();
    parts.sort_unstable_by_key(|(place, _)| place.start);
    match parts.windows(2).find(|pair| pair[1].0.start < pair[0].0.end) {
        None => Ok(()),
        Some(pair) => Err(FormatError::Damaged(format!("{} and {} overlap", pair[0].1, pair[1].1))),
    }
}
