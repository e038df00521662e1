//! What other versions wrote is read, or refused by name and number.

use vmm_snapshot::{FieldReader, FieldWriter, Manifest, State, StateError, StateFile, StateWriter};

use crate::machine::{Hint, Port, Timer, manifest, port, put, state, timer, writer};

/// A port of another version: the fields of [`Port`], and bytes behind them.
struct PortOf<const VERSION: u16, const MIN_READER: u16> {
    bytes: Vec<u8>,
}

impl<const V: u16, const M: u16> State for PortOf<V, M> {
    const KIND: &'static str = "virtio.port";
    const VERSION: u16 = V;
    const MIN_READER: u16 = M;

    fn save(&self, fields: &mut FieldWriter) {
        self.bytes.iter().for_each(|byte| fields.u8(*byte));
    }

    fn load(version: u16, _fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Err(StateError::new("version", version.to_string()))
    }
}

fn with<const V: u16, const M: u16>(bytes: Vec<u8>) -> StateFile {
    let mut writer = StateWriter::new();
    writer.add(2, &PortOf::<V, M> { bytes });
    StateFile::parse(state(writer)).unwrap()
}

/// The fields of a port in version 2, or 1.
fn fields(has_name: bool) -> Vec<u8> {
    let mut fields = FieldWriter::new();
    port().save(&mut fields);
    let mut bytes = fields.into_bytes();
    bytes.truncate(bytes.len() - if has_name { 0 } else { "xxxxnet0".len() });
    bytes
}

#[test]
fn section_of_the_version_before_is_read() {
    let read = with::<1, 1>(fields(false)).take::<Port>(2).unwrap();
    assert_eq!(read, Port { name: String::new(), ..port() });
}

#[test]
fn section_of_an_older_version_is_refused_by_name_and_number() {
    let read = with::<1, 1>(fields(false)).take::<PortOf<3, 3>>(2);
    let message = "section virtio.port/2 has version 1, and this monitor reads from 2 on";
    assert_eq!(read.err().unwrap().to_string(), message);
}

#[test]
fn section_of_a_newer_version_is_refused_by_name_and_number() {
    let read = with::<3, 3>(fields(true)).take::<Port>(2);
    let message = "section virtio.port/2 has version 3, and this monitor reads up to 2";
    assert_eq!(read.unwrap_err().to_string(), message);
}

#[test]
fn section_of_a_newer_version_that_suits_older_readers_is_read() {
    let mut bytes = fields(true);
    bytes.extend([1, 2, 3]);
    assert_eq!(with::<3, 2>(bytes).take::<Port>(2).unwrap(), port());
}

#[test]
fn section_with_more_fields_than_its_version_is_refused() {
    let mut bytes = fields(true);
    bytes.extend([1, 2, 3]);
    let message = "section virtio.port/2: end: 3 bytes follow the last field";
    assert_eq!(with::<2, 2>(bytes).take::<Port>(2).unwrap_err().to_string(), message);
}

#[test]
fn section_with_a_bad_field_is_refused_by_name() {
    // One queue: size 256, and an option that is neither.
    let message = "section virtio.port/2: queues[0]: ring: 7 is neither 0 nor 1";
    assert_eq!(with::<2, 2>(vec![1, 0, 0, 0, 0, 1, 7]).take::<Port>(2).unwrap_err().to_string(), message);
}

#[test]
fn section_that_nothing_takes_is_refused_by_name_and_number() {
    let mut file = StateFile::parse(state(writer())).unwrap();
    file.take::<Timer>(0).unwrap();
    let message = "section virtio.port/2, version 2, is of a part that this monitor doesn't know, and may not be skipped";
    assert_eq!(file.finish().unwrap_err().to_string(), message);
}

#[test]
fn section_that_may_be_skipped_needs_no_reader() {
    let mut file = StateFile::parse(state(writer())).unwrap();
    file.take::<Timer>(0).unwrap();
    file.take::<Port>(2).unwrap();
    file.finish().unwrap();
}

/// A hint of a later version.
struct NewerHint;

impl State for NewerHint {
    const KIND: &'static str = "dev.hint";
    const VERSION: u16 = 9;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u64(0);
    }

    fn load(version: u16, _fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Err(StateError::new("version", version.to_string()))
    }
}

#[test]
fn newer_section_that_may_be_skipped_counts_as_not_saved() {
    let mut writer = StateWriter::new();
    writer.add_skippable(0, &NewerHint).add(0, &timer());
    let mut file = StateFile::parse(state(writer)).unwrap();
    assert_eq!(file.take_if_present::<Hint>(0).unwrap(), None);
    assert_eq!(file.take::<Hint>(0).unwrap_err().to_string(), "section dev.hint/0 is missing");
    file.take::<Timer>(0).unwrap();
    file.finish().unwrap();
}

#[test]
fn newer_section_that_may_not_be_skipped_is_refused_though_it_is_optional() {
    let mut writer = StateWriter::new();
    writer.add(0, &NewerHint);
    let mut file = StateFile::parse(state(writer)).unwrap();
    let message = "section dev.hint/0 has version 9, and this monitor reads up to 1";
    assert_eq!(file.take_if_present::<Hint>(0).unwrap_err().to_string(), message);
}

/// A header of a format that is longer, or shorter, than ours, with a checksum at its end.
fn header_of(format: u16, len: usize) -> Vec<u8> {
    let mut file = vec![0xa5; len + 100];
    put(&mut file, 0, b"VMMSTATE");
    put(&mut file, 8, &format.to_le_bytes());
    put(&mut file, 10, &(len as u16).to_le_bytes());
    let crc = crc32fast::hash(&file[..len - 4]);
    put(&mut file, len - 4, &crc.to_le_bytes());
    file
}

#[test]
fn newer_format_is_refused_by_number() {
    let refusal = |file: &[u8]| StateFile::parse(file).unwrap_err().to_string();
    assert_eq!(
        refusal(&header_of(2, 64)),
        "has format 2, and this monitor reads up to 1: use a newer version"
    );
    assert_eq!(
        refusal(&header_of(513, 16)),
        "has format 513, and this monitor reads up to 1: use a newer version"
    );
    let mut damaged = header_of(2, 64);
    damaged[59] ^= 1;
    assert_eq!(refusal(&damaged), "is damaged: the checksum of its header doesn't match");
}

#[test]
fn older_format_is_refused_by_number() {
    let error = StateFile::parse(header_of(0, 48)).unwrap_err();
    assert_eq!(error.to_string(), "has format 0, and this monitor reads from 1 on: use an older version");
}

#[test]
fn newer_manifest_is_refused_by_number_whatever_it_contains() {
    let error = Manifest::parse(br#"{"format": 70000, "sections": 3, "future": [1, {}]}"#).unwrap_err();
    assert_eq!(error.to_string(), "has format 70000, and this monitor reads up to 1: use a newer version");
}

#[test]
fn manifest_of_this_format_with_an_unknown_field_is_refused_by_name() {
    let text =
        manifest(&writer()).to_json().unwrap().replacen("\"program\"", "\"future\": 1, \"program\"", 1);
    let error = Manifest::parse(text.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("the manifest: unknown field `future`, expected "), "{error}");
}
