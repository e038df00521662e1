//! The qcow2 header on its own, with arbitrary contents.

use std::path::Path;

use proptest::prelude::*;
use vmm_virtio_devices::block::qcow2::header::{Backing, Compression, Header, MAGIC};
use vmm_virtio_devices::block::qcow2::{Encryption, Refusal};

/// The first cluster, of 64 KiB, of a version 3 image with a disk of 1 GiB, as created by qemu-img.
fn version_3() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, 4, &3_u32.to_be_bytes());
    put(&mut bytes, 20, &16_u32.to_be_bytes());
    put(&mut bytes, 24, &(1_u64 << 30).to_be_bytes());
    // Two entries of 512 MiB each.
    put(&mut bytes, 36, &2_u32.to_be_bytes());
    put(&mut bytes, 40, &0x3_0000_u64.to_be_bytes());
    put(&mut bytes, 48, &0x1_0000_u64.to_be_bytes());
    put(&mut bytes, 56, &1_u32.to_be_bytes());
    put(&mut bytes, 96, &4_u32.to_be_bytes());
    put(&mut bytes, 100, &112_u32.to_be_bytes());
    bytes
}

fn version_2() -> Vec<u8> {
    let mut bytes = version_3();
    put(&mut bytes, 4, &2_u32.to_be_bytes());
    bytes[72..112].fill(0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// [`version_3`] with a changed field.
fn with(at: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = version_3();
    put(&mut bytes, at, field);
    bytes
}

/// An extension: its type, length and data, padded to 8 bytes.
fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn refused(bytes: &[u8]) -> Refusal {
    Header::parse(bytes).expect_err("it is refused")
}

fn damaged(what: &'static str, value: u64) -> Refusal {
    Refusal::Damaged(what, value)
}

const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;

#[test]
fn fields_are_those_of_the_specification() {
    let expected = Header {
        version: 3,
        cluster_bits: 16,
        disk_len: 1 << 30,
        compression: Compression::Deflate,
        incompatible: 0,
        is_corrupt: false,
        autoclear: 0,
        backing: None,
        l1: (2, 0x3_0000),
        refcount_table: (1, 0x1_0000),
        refcount_order: 4,
        snapshots: (0, 0),
    };
    assert_eq!(Header::parse(&version_3()), Ok(expected.clone()));
    let snapshots = with(60, &[&3_u32.to_be_bytes()[..], &0x5_0000_u64.to_be_bytes()].concat());
    assert_eq!(Header::parse(&snapshots).unwrap().snapshots, (3, 0x5_0000));
    assert_eq!(Header::parse(&version_2()), Ok(Header { version: 2, ..expected }));
}

#[test]
fn version_2_has_no_features_whatever_follows_its_header() {
    let mut bytes = version_2();
    // A backing file's name where version 3 has its features.
    bytes[80..104].fill(0xff);
    put(&mut bytes, 8, &80_u64.to_be_bytes());
    put(&mut bytes, 16, &24_u32.to_be_bytes());
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((header.autoclear, header.refcount_order), (0, 4));
    assert_eq!(header.backing, Some(Backing { name: vec![0xff; 24], format: None }));
}

#[test]
fn encryption_is_refused_by_its_name() {
    assert_eq!(refused(&with(32, &1_u32.to_be_bytes())), Refusal::Encrypted(Encryption::Aes));
    assert_eq!(refused(&with(32, &2_u32.to_be_bytes())), Refusal::Encrypted(Encryption::Luks));
    assert_eq!(refused(&with(32, &7_u32.to_be_bytes())), Refusal::Encrypted(Encryption::Other(7)));
    let mut bytes = version_2();
    put(&mut bytes, 32, &1_u32.to_be_bytes());
    assert_eq!(refused(&bytes), Refusal::Encrypted(Encryption::Aes));
}

#[test]
fn incompatible_features_are_known_or_refused() {
    assert_eq!(refused(&with(79, &[1])), Refusal::Dirty);
    assert!(Header::parse(&with(79, &[2])).unwrap().is_corrupt);
    assert_eq!(refused(&with(79, &[4])), Refusal::ExternalData);
    assert_eq!(refused(&with(79, &[16])), Refusal::ExtendedL2);
    assert_eq!(refused(&with(79, &[32])), Refusal::UnknownFeature { bit: 5, name: None });
    assert_eq!(refused(&with(72, &[0x80])), Refusal::UnknownFeature { bit: 63, name: None });
}

#[test]
fn unknown_feature_has_the_name_that_the_image_gives_it() {
    let mut entry = [0; 48];
    entry[1] = 5;
    put(&mut entry, 2, b"\x1b[31mlazy\nlunch");
    let mut other = entry;
    // A compatible feature with the same number.
    other[0] = 1;
    // An incomplete entry at the end is ignored.
    let names = [&other[..], &entry, &[0; 7]].concat();
    let mut bytes = with(79, &[32]);
    put(&mut bytes, 112, &extension(FEATURE_NAMES, &names));
    let refusal = refused(&bytes);
    assert_eq!(refusal, Refusal::UnknownFeature { bit: 5, name: Some("[31mlazylunch".to_owned()) });
    assert_eq!(
        refusal.problem(Path::new("a.qcow2")),
        "has the incompatible feature 5 (\"[31mlazylunch\"), which isn't supported: convert it, qemu-img convert -O qcow2 \
         a.qcow2 NEW.qcow2"
    );
}

#[test]
fn compatible_and_autoclear_features_and_unknown_fields_and_extensions_are_ignored() {
    let mut bytes = version_3();
    bytes[80..96].fill(0xff);
    // Extra header fields and an extension that this version of the specification doesn't define.
    put(&mut bytes, 100, &200_u32.to_be_bytes());
    bytes[105..200].fill(0xff);
    put(&mut bytes, 200, &extension(0xdead_beef, &[1, 2, 3]));
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((header.autoclear, header.has_bitmaps()), (u64::MAX, true));
}

#[test]
fn compression_type_goes_with_its_feature() {
    let mut bytes = with(79, &[8]);
    bytes[104] = 1;
    assert_eq!(Header::parse(&bytes).unwrap().compression, Compression::Zstd);
    bytes[104] = 2;
    assert_eq!(refused(&bytes), Refusal::Compression(2));
    bytes[104] = 0;
    assert_eq!(refused(&bytes), damaged("the compression type", 0));
    assert_eq!(refused(&with(104, &[1])), damaged("the compression type", 1));
    // A header without the field, directly followed by an extension.
    let mut bytes = with(100, &104_u32.to_be_bytes());
    put(&mut bytes, 104, &extension(0xdead_beef, &[]));
    assert_eq!(Header::parse(&bytes).unwrap().compression, Compression::Deflate);
}

#[test]
fn backing_file_has_the_name_and_format_of_the_image() {
    let mut bytes = version_3();
    let extensions = [extension(BACKING_FORMAT, b"qcow2"), extension(0, &[])].concat();
    put(&mut bytes, 112, &extensions);
    let name_at = 112 + extensions.len();
    put(&mut bytes, name_at, b"base.img");
    put(&mut bytes, 8, &(name_at as u64).to_be_bytes());
    put(&mut bytes, 16, &8_u32.to_be_bytes());
    let expected = Backing { name: b"base.img".to_vec(), format: Some("qcow2".to_owned()) };
    assert_eq!(Header::parse(&bytes).unwrap().backing, Some(expected));
    put(&mut bytes, 16, &1024_u32.to_be_bytes());
    assert_eq!(refused(&bytes), damaged("the backing file name's offset", name_at as u64));
    put(&mut bytes, 16, &8_u32.to_be_bytes());
    put(&mut bytes, 8, &0xfff9_u64.to_be_bytes());
    assert_eq!(refused(&bytes), damaged("the backing file name's offset", 0xfff9));
}

#[test]
fn extension_beyond_the_cluster_is_refused() {
    let mut bytes = version_3();
    put(&mut bytes, 112, &extension(FEATURE_NAMES, &[]));
    put(&mut bytes, 116, &u32::MAX.to_be_bytes());
    assert_eq!(refused(&bytes), damaged("a header extension's length", 0xffff_ffff));
}

#[test]
fn header_that_is_cut_short_or_no_header_is_refused() {
    assert_eq!(refused(&version_3()[..90]), Refusal::CutShort(90));
    assert_eq!(refused(b""), Refusal::NotQcow2);
    assert_eq!(refused(&[0; 512]), Refusal::NotQcow2);
    assert_eq!(refused(&with(4, &1_u32.to_be_bytes())), Refusal::Version(1));
    assert_eq!(refused(&with(4, &4_u32.to_be_bytes())), Refusal::Version(4));
    assert_eq!(refused(&with(100, &103_u32.to_be_bytes())), damaged("the header's length", 103));
    assert_eq!(refused(&with(100, &0x1_0001_u32.to_be_bytes())), damaged("the header's length", 0x1_0001));
}

/// Whatever is read into memory is bounded, and nothing overlaps the header.
#[test]
fn tables_that_cannot_be_are_refused() {
    assert_eq!(refused(&with(20, &8_u32.to_be_bytes())), damaged("the cluster size", 8));
    assert_eq!(refused(&with(20, &22_u32.to_be_bytes())), damaged("the cluster size", 22));
    assert_eq!(refused(&with(20, &u32::MAX.to_be_bytes())), damaged("the cluster size", 0xffff_ffff));
    assert_eq!(refused(&with(36, &1_u32.to_be_bytes())), damaged("the level 1 table's size", 1));
    assert_eq!(
        refused(&with(36, &0x40_0001_u32.to_be_bytes())),
        damaged("the level 1 table's size", 0x40_0001)
    );
    assert!(Header::parse(&with(36, &0x40_0000_u32.to_be_bytes())).is_ok());
    assert_eq!(refused(&with(24, &u64::MAX.to_be_bytes())), damaged("the level 1 table's size", 2));
    assert_eq!(refused(&with(40, &0_u64.to_be_bytes())), damaged("the level 1 table's offset", 0));
    assert_eq!(
        refused(&with(40, &0x3_0200_u64.to_be_bytes())),
        damaged("the level 1 table's offset", 0x3_0200)
    );
    assert_eq!(
        refused(&with(48, &(1_u64 << 56).to_be_bytes())),
        damaged("the refcount table's offset", 1 << 56)
    );
    assert_eq!(refused(&with(56, &0_u32.to_be_bytes())), damaged("the refcount table's size", 0));
    assert_eq!(refused(&with(56, &129_u32.to_be_bytes())), damaged("the refcount table's size", 129));
    assert_eq!(refused(&with(96, &7_u32.to_be_bytes())), damaged("the refcounts' width", 7));
}

proptest! {
    /// Whatever is changed in a header, it is either valid or rejected with a one-line message.
    #[test]
    fn header_with_any_fields_is_refused_or_can_be_used(
        fields in prop::collection::vec((0..64_usize, any::<u32>()), 0..6),
        small in prop::collection::vec((0..64_usize, 0..32_u32), 0..6),
        len in prop_oneof![Just(64_usize << 10), 0..300_usize],
    ) {
        let mut bytes = version_3();
        for (field, value) in fields.into_iter().chain(small) {
            put(&mut bytes, field * 4, &value.to_be_bytes());
        }
        match Header::parse(&bytes[..len]) {
            Ok(header) => {
                let cluster_len = 1_u128 << header.cluster_bits;
                let (entries, offset) = header.l1;
                prop_assert!(entries <= 4 << 20 && u128::from(offset) % cluster_len == 0);
                prop_assert!(u128::from(header.disk_len) <= u128::from(entries) * cluster_len * cluster_len / 8);
            }
            Err(refusal) => {
                let problem = refusal.problem(Path::new("a.qcow2"));
                prop_assert!(problem.len() < 400 && !problem.contains(char::is_control));
            }
        }
    }
}
