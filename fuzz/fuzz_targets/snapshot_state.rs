//! The state of a snapshot: any sections, damaged anywhere, with and without checksums that match. What is loaded is what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::snapshot::{KINDS, Part, manifest};
use vmm_snapshot::{FieldReader, FieldWriter, FormatError, Section, SectionKind, State, StateFile};

const HEADER_LEN: usize = 48;
const RECORD_LEN: usize = 48;

/// Kind, instance, version, oldest reader and flags of a section, and its fields.
type Given = ((u8, u32, u16, u16, u8), Vec<u8>);

fuzz_target!(|input: (u8, Vec<Given>, Vec<(u16, u8)>)| {
    let (choice, given, patches) = input;
    let mut file = written(&given);
    for (at, byte) in &patches {
        let at = usize::from(*at) % file.len();
        file[at] = *byte;
    }
    if choice & 1 == 0 {
        seal(&mut file);
    }
    match StateFile::parse(file) {
        Ok(file) => {
            check(file);
        }
        Err(error) => {
            let len = error.to_string().len();
            assert!((1..=4096).contains(&len), "{len} bytes of message");
        }
    }
});

/// The file of these sections, whether they are valid or not.
fn written(given: &[Given]) -> Vec<u8> {
    let kind = |kind: &u8| KINDS[usize::from(*kind) % KINDS.len()];
    let listed = given.iter().map(|((kind_number, instance, version, ..), _)| Section {
        kind: SectionKind::new(kind(kind_number)).expect("a kind"),
        instance: *instance,
        version: *version,
    });
    let manifest = manifest(listed.collect());
    // Two of the same name: the manifest would be refused, so that it lists none.
    let text = manifest.to_json().unwrap_or_else(|_| self::manifest(Vec::new()).to_json().expect("no sections"));
    let first: ((&str, u32, u16, u16, u8), &[u8]) = (("manifest", 0, 1, 1, 0), text.as_bytes());
    let others = given.iter().map(|((number, instance, version, oldest, flags), bytes)| {
        ((kind(number), *instance, *version, *oldest, *flags), bytes.as_slice())
    });
    let sections: Vec<_> = [first].into_iter().chain(others).collect();
    let directory_len = sections.len() * RECORD_LEN;
    let mut offset = HEADER_LEN + directory_len;
    let mut directory = FieldWriter::new();
    for ((kind, instance, version, oldest, flags), bytes) in &sections {
        let mut padded = [0; 16];
        padded[..kind.len()].copy_from_slice(kind.as_bytes());
        directory.array(&padded);
        directory.u32(*instance);
        directory.u16(*version);
        directory.u16(*oldest);
        directory.u32((*flags).into());
        directory.u64(offset as u64);
        directory.u64(bytes.len() as u64);
        directory.u32(0);
        offset += bytes.len();
    }
    let mut file = FieldWriter::new();
    file.array(b"VMMSTATE");
    file.u16(1);
    file.u16(HEADER_LEN as u16);
    file.u32(sections.len() as u32);
    file.u64(HEADER_LEN as u64);
    file.u64(directory_len as u64);
    file.u64(offset as u64);
    file.u64(0);
    let bodies: Vec<u8> = sections.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    [file.into_bytes(), directory.into_bytes(), bodies].concat()
}

/// Makes the checksums match, as far as the file has what they are of.
fn seal(file: &mut [u8]) {
    let number = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
    let count = u32::from_le_bytes(file[12..16].try_into().expect("four bytes")) as usize;
    let place = |offset: u64, len: u64, file: &[u8]| {
        let end = offset.checked_add(len).filter(|end| *end <= file.len() as u64)?;
        Some(offset as usize..end as usize)
    };
    let Some(directory) = place(number(file, 16), number(file, 24), file) else { return };
    for index in 0..count.min(directory.len() / RECORD_LEN) {
        let at = directory.start + index * RECORD_LEN;
        if let Some(section) = place(number(file, at + 28), number(file, at + 36), file) {
            let crc = crc32(&file[section]);
            file[at + 44..at + 48].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32(&file[directory]);
    file[40..44].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32(&file[..44]);
    file[44..48].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32 bit by bit, so as not to use the crate's own.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Takes every section.
fn check(mut file: StateFile) {
    for section in file.manifest().sections.clone() {
        match section.kind.as_str() {
            "dev.0" => take::<0>(&mut file, section.instance),
            "dev.1" => take::<1>(&mut file, section.instance),
            "dev.2" => take::<2>(&mut file, section.instance),
            _ => {}
        }
    }
    if let Err(error) = file.finish() {
        assert!(matches!(error, FormatError::UnknownSection { .. }), "{error}");
    }
}

fn take<const KIND: usize>(file: &mut StateFile, instance: u32) {
    let Ok(Some(part)) = file.take_if_present::<Part<KIND>>(instance) else { return };
    let mut fields = FieldWriter::new();
    part.save(&mut fields);
    let bytes = fields.into_bytes();
    let mut fields = FieldReader::new(&bytes);
    assert_eq!(Part::load(2, &mut fields).as_ref(), Ok(&part));
    fields.finish().expect("nothing is left over");
}
