//! Truncated, changed and contradictory files are refused.

use vmm_snapshot::{FormatError, Manifest, StateFile};

use crate::machine::{HEADER_LEN, manifest, put, record, seal, state, u64_at, writer};

fn refusal(file: &[u8]) -> String {
    StateFile::parse(file).unwrap_err().to_string()
}

/// The state with something in header or directory replaced, and the checksums made right again.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = state(writer());
    put(&mut file, at, bytes);
    seal(&mut file);
    file
}

#[test]
fn state_truncated_anywhere_is_refused() {
    let file = state(writer());
    for len in 0..file.len() {
        assert!(StateFile::parse(&file[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn state_with_a_flipped_bit_is_refused() {
    let file = state(writer());
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = StateFile::parse(flipped).expect_err("a flipped bit");
        // It isn't taken for a newer one, even if the bit is one of the format.
        let is_damage = matches!(error, FormatError::Damaged(_) | FormatError::NotState);
        assert!(is_damage, "bit {bit}: {error}");
    }
}

#[test]
fn manifest_truncated_anywhere_is_refused() {
    let text = manifest(&writer()).to_json().unwrap();
    // But for the line feed.
    for len in 0..text.len() - 1 {
        assert!(Manifest::parse(&text.as_bytes()[..len]).is_err(), "{len} bytes");
    }
}

/// A text has no checksum: a change of it is found because the state has the same manifest.
#[test]
fn manifest_with_a_flipped_bit_is_refused_or_differs() {
    let manifest = manifest(&writer());
    let text = manifest.to_json().unwrap().into_bytes();
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // One flip doesn't make another white space of a space or a line feed.
        let is_same = Manifest::parse(&flipped).is_ok_and(|read| read == manifest);
        assert!(!is_same, "bit {bit}");
    }
}

#[test]
fn other_file_is_named_as_such() {
    assert_eq!(refusal(b"\x7fELF"), "is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"");
    assert_eq!(refusal(b""), "is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"");
}

#[test]
fn truncated_file_is_called_that() {
    let file = state(writer());
    let (len, cut) = (file.len(), file.len() - 1);
    let message = format!("is damaged: it has {cut} bytes, but its header says {len}");
    assert_eq!(refusal(&file[..cut]), message);
    assert_eq!(refusal(&file[..20]), "is damaged: it ends within its header");
}

#[test]
fn file_with_more_behind_it_is_refused() {
    let mut file = state(writer());
    file.push(0);
    assert!(refusal(&file).starts_with("is damaged: it has "), "{}", refusal(&file));
}

#[test]
fn damaged_section_is_named() {
    let mut file = state(writer());
    // The hint's last byte.
    *file.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&file), "is damaged: the checksum of section dev.hint/0 doesn't match");
}

#[test]
fn section_outside_of_the_file_is_refused() {
    let file = patched(record(1) + 28, &u64::MAX.to_le_bytes());
    let message = "is damaged: section dev.timer/0, 3 bytes at 18446744073709551615, is beyond its end";
    assert_eq!(refusal(&file), message);
}

#[test]
fn section_that_is_too_long_is_refused() {
    let file = patched(record(1) + 36, &(1_u64 << 40).to_le_bytes());
    assert_eq!(
        refusal(&file),
        "section dev.timer/0 has 1099511627776 bytes, but a section has at most 1048576"
    );
}

/// The hint's section becomes the timer's, whose bytes it then shares.
#[test]
fn sections_that_overlap_are_refused() {
    let mut file = state(writer());
    let timer = file[record(1) + 28..record(1) + 48].to_vec();
    put(&mut file, record(3) + 28, &timer);
    seal(&mut file);
    assert_eq!(refusal(&file), "is damaged: section dev.timer/0 and section dev.hint/0 overlap");
}

#[test]
fn section_in_the_header_or_the_directory_is_refused() {
    let mut file = state(writer());
    for (offset, what) in [(8_u64, "the header"), (HEADER_LEN as u64, "the directory")] {
        put(&mut file, record(1) + 28, &offset.to_le_bytes());
        put(&mut file, record(1) + 36, &1_u64.to_le_bytes());
        let crc = crc32fast::hash(&file[offset as usize..][..1]);
        put(&mut file, record(1) + 44, &crc.to_le_bytes());
        seal(&mut file);
        assert_eq!(refusal(&file), format!("is damaged: {what} and section dev.timer/0 overlap"));
    }
}

#[test]
fn two_sections_of_one_name_are_refused() {
    let mut file = state(writer());
    let name = file[record(1)..record(1) + 20].to_vec();
    put(&mut file, record(3), &name);
    seal(&mut file);
    assert_eq!(refusal(&file), "section dev.timer/0 is there twice");
}

#[test]
fn kind_of_other_characters_is_refused() {
    let file = patched(record(1), b"DEV");
    assert_eq!(refusal(&file), r#"is damaged: kind: "DEV.timer\x00\x00\x00\x00\x00\x00\x00" is not one"#);
}

#[test]
fn unknown_flag_is_refused() {
    let file = patched(record(1) + 24, &3_u32.to_le_bytes());
    assert_eq!(refusal(&file), "is damaged: section dev.timer/0: flags: 0x3 has unknown bits");
}

#[test]
fn oldest_reader_beyond_the_version_is_refused() {
    let file = patched(record(1) + 22, &2_u16.to_le_bytes());
    let message = "is damaged: section dev.timer/0: oldest reader: 2 is not between 1 and the version, 1";
    assert_eq!(refusal(&file), message);
    assert!(refusal(&patched(record(1) + 22, &0_u16.to_le_bytes())).contains("oldest reader: 0 "));
}

#[test]
fn directory_of_another_length_than_its_count_is_refused() {
    let file = patched(12, &3_u32.to_le_bytes());
    assert_eq!(refusal(&file), "is damaged: its directory has 192 bytes for 3 sections");
    let file = patched(12, &u32::MAX.to_le_bytes());
    assert_eq!(refusal(&file), "has 4294967295 sections, but the state of a machine has at most 16384");
}

#[test]
fn directory_outside_of_the_file_is_refused() {
    let mut file = state(writer());
    put(&mut file, 16, &u64::MAX.to_le_bytes());
    let crc = crc32fast::hash(&file[..44]);
    put(&mut file, 44, &crc.to_le_bytes());
    let message = "is damaged: the directory, 192 bytes at 18446744073709551615, is beyond its end";
    assert_eq!(refusal(&file), message);
}

#[test]
fn header_of_another_length_is_refused() {
    let mut file = state(writer());
    put(&mut file, 10, &15_u16.to_le_bytes());
    assert_eq!(refusal(&file), "is damaged: its header has 15 bytes");
}

#[test]
fn manifest_that_the_sections_contradict_is_refused() {
    // Version 3 of the port, which the manifest lists as 2.
    let file = patched(record(2) + 20, &3_u16.to_le_bytes());
    let message = "the manifest lists other sections than the directory: virtio.port/2 version 2 instead of \
                   virtio.port/2 version 3";
    assert_eq!(refusal(&file), message);
}

#[test]
fn state_without_a_manifest_is_refused() {
    let file = patched(record(0), b"nanifest");
    assert_eq!(refusal(&file), "section manifest/0 is missing");
}

/// A directory may be anywhere, and there may be bytes that belong to nothing.
#[test]
fn directory_at_the_end_is_read() {
    let mut file = state(writer());
    let directory = file[HEADER_LEN..record(4)].to_vec();
    let at = file.len() as u64;
    file.extend(&directory);
    let len = file.len() as u64;
    put(&mut file, 16, &at.to_le_bytes());
    put(&mut file, 32, &len.to_le_bytes());
    let crc = crc32fast::hash(&file[..44]);
    put(&mut file, 44, &crc.to_le_bytes());
    assert_eq!(u64_at(&file, 24), 192);
    assert_eq!(StateFile::parse(file).unwrap().manifest().sections.len(), 3);
}
