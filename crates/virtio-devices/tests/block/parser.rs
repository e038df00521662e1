//! The parser on its own, with arbitrary input.

use proptest::prelude::*;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES,
};
use vmm_hostio::Durable;
use vmm_virtio::Fault;
use vmm_virtio::testing::LooseChain;
use vmm_virtio_devices::block::request::{Request, SECTOR_LEN, Status, Terms, parse};

use crate::disk::*;

/// 40 MiB: more than one request may zero.
const DISK: u64 = 80 << 10;

/// Interesting sectors: near the start, the end, and where a multiplication overflows.
fn sector() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, DISK - 4..DISK + 4, (1_u64 << 55) - 4..(1 << 55) + 4, u64::MAX - 4..=u64::MAX]
}

fn kind() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(IN),
        Just(OUT),
        Just(FLUSH),
        Just(GET_ID),
        Just(DISCARD),
        Just(WRITE_ZEROES),
        any::<u32>()
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let sectors = prop_oneof![0..16_u32, any::<u32>()];
    prop_oneof![
        (0..4_usize).prop_map(|sectors| vec![1; sectors * 512]),
        (sector(), sectors, 0..3_u32)
            .prop_map(|(sector, sectors, flags)| segment(sector, sectors, flags).to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn room() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(21), (0..4_u32).prop_map(|sectors| sectors * 512 + 1), 0..600_u32]
}

proptest! {
    /// A parsed request lies inside the disk, changes nothing read-only, and doesn't depend on the descriptor
    /// layout.
    #[test]
    fn request_lies_inside_the_disk(
        (kind, sector, data, room) in (kind(), sector(), data(), room()),
        (cut, read_only, features) in (0..40_usize, any::<bool>(), any::<u64>()),
    ) {
        let bytes = [&header(kind, sector)[..], &data].concat();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let chain = LooseChain::new(&[first, second], &[room / 2, room - room / 2]);
        let terms = Terms { sectors: DISK, read_only, features };
        let Ok(parsed) = parse(&chain.chain(), &terms) else {
            prop_assert_eq!(room, 0);
            return Ok(());
        };
        prop_assert_eq!(parsed.status.len(), 1);
        let (range, writes) = match parsed.request {
            Ok(Request::Read { offset, into }) => (offset..offset + into.len(), false),
            Ok(Request::Write { offset, from }) => (offset..offset + from.len(), true),
            Ok(Request::Discard { range } | Request::WriteZeroes { range, .. }) => (range, true),
            Ok(Request::Identify { into }) => {
                prop_assert_eq!(into.len(), 20);
                (0..0, false)
            }
            Ok(Request::Flush) | Err(_) => (0..0, false),
        };
        prop_assert!(range.start <= range.end && range.end <= DISK * SECTOR_LEN);
        prop_assert!(range.start.is_multiple_of(SECTOR_LEN) && range.end.is_multiple_of(SECTOR_LEN));
        prop_assert!(!(writes && read_only));
    }
}

/// A disk of 16 sectors whose driver accepted all features.
const SMALL: Terms = Terms { sectors: 16, read_only: false, features: u64::MAX };
/// A disk of 2 GiB, larger than any request.
const LARGE: Terms = Terms { sectors: 1 << 22, ..SMALL };

const FAILED: Result<String, Status> = Err(Status::Failed);
const UNSUPPORTED: Result<String, Status> = Err(Status::Unsupported);

/// Calls `look` with the parsed request. `data` follows its header; `room` is the writable length besides the
/// status.
fn parsed<T>(
    terms: Terms,
    (kind, sector): (u32, u64),
    (data, room): (&[u8], u32),
    look: impl FnOnce(&Request<'_>) -> T,
) -> Result<T, Status> {
    let chain = LooseChain::new(&[&header(kind, sector), data], &[room, 1]);
    parse(&chain.chain(), &terms).unwrap().request.map(|request| look(&request))
}

/// The operation, or the status of a rejected request.
fn outcome(terms: Terms, request: (u32, u64), buffers: (&[u8], u32)) -> Result<String, Status> {
    parsed(terms, request, buffers, |request| match request {
        Request::Read { offset, into } => format!("read {} bytes at {offset}", into.len()),
        Request::Write { offset, from } => format!("write {} bytes at {offset}", from.len()),
        Request::Flush => "flush".to_owned(),
        Request::Identify { into } => format!("identify in {} bytes", into.len()),
        Request::Discard { range } => format!("discard {range:?}"),
        Request::WriteZeroes { range, unmap: true } => format!("zero {range:?} and unmap"),
        Request::WriteZeroes { range, unmap: false } => format!("zero {range:?}"),
    })
}

fn is(outcome: &str) -> Result<String, Status> {
    Ok(outcome.to_owned())
}

#[test]
fn request_of_each_type_says_what_to_do() {
    assert_eq!(outcome(SMALL, (IN, 2), (&[], 1024)), is("read 1024 bytes at 1024"));
    assert_eq!(outcome(SMALL, (OUT, 15), (&[1; 512], 0)), is("write 512 bytes at 7680"));
    assert_eq!(outcome(SMALL, (FLUSH, 0), (&[], 0)), is("flush"));
    assert_eq!(outcome(SMALL, (GET_ID, 0), (&[], 20)), is("identify in 20 bytes"));
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(8, 4, 0), 0)), is("discard 4096..6144"));
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(0, 16, 0), 0)), is("zero 0..8192"));
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(8, 4, 1), 0)), is("zero 4096..6144 and unmap"));
}

#[test]
fn request_of_another_type_is_unsupported() {
    // VIRTIO_BLK_T_SCSI_CMD, and the number after the last valid one.
    assert_eq!(outcome(SMALL, (2, 0), (&[], 0)), UNSUPPORTED);
    assert_eq!(outcome(SMALL, (17, 0), (&[], 0)), UNSUPPORTED);
}

#[test]
fn request_with_data_that_its_type_does_not_take_fails() {
    assert_eq!(outcome(SMALL, (IN, 0), (&[1; 512], 512)), FAILED);
    assert_eq!(outcome(SMALL, (FLUSH, 0), (&[1], 0)), FAILED);
    assert_eq!(outcome(SMALL, (GET_ID, 0), (&[1], 20)), FAILED);
}

#[test]
fn request_with_room_that_its_type_does_not_fill_fails() {
    assert_eq!(outcome(SMALL, (OUT, 0), (&[1; 512], 512)), FAILED);
    assert_eq!(outcome(SMALL, (FLUSH, 0), (&[], 1)), FAILED);
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(8, 4, 0), 1)), FAILED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(8, 4, 0), 1)), FAILED);
}

#[test]
fn serial_in_more_or_less_than_20_bytes_fails() {
    assert_eq!(outcome(SMALL, (GET_ID, 0), (&[], 19)), FAILED);
    assert_eq!(outcome(SMALL, (GET_ID, 0), (&[], 21)), FAILED);
}

#[test]
fn segment_of_more_or_less_than_16_bytes_fails() {
    // The first 16 bytes are a valid segment.
    let two = [segment(8, 4, 0), segment(0, 1, 0)].concat();
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&two[..15], 0)), FAILED);
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&two[..17], 0)), FAILED);
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&two, 0)), FAILED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&two[..15], 0)), FAILED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&two[..17], 0)), FAILED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&two, 0)), FAILED);
}

#[test]
fn segment_with_a_flag_that_its_type_does_not_have_is_unsupported() {
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(8, 4, 1), 0)), UNSUPPORTED);
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(8, 4, 2), 0)), UNSUPPORTED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(8, 4, 2), 0)), UNSUPPORTED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(8, 4, 3), 0)), UNSUPPORTED);
}

#[test]
fn data_of_no_whole_sectors_fails() {
    assert_eq!(outcome(SMALL, (IN, 0), (&[], 511)), FAILED);
    assert_eq!(outcome(SMALL, (OUT, 0), (&[1; 513], 0)), FAILED);
}

#[test]
fn range_up_to_the_end_of_the_disk_is_served_and_no_further() {
    assert_eq!(outcome(SMALL, (IN, 14), (&[], 1024)), is("read 1024 bytes at 7168"));
    assert_eq!(outcome(SMALL, (IN, 15), (&[], 1024)), FAILED);
    assert_eq!(outcome(SMALL, (IN, 16), (&[], 0)), is("read 0 bytes at 8192"));
    assert_eq!(outcome(SMALL, (IN, 17), (&[], 0)), FAILED);
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(14, 2, 0), 0)), is("discard 7168..8192"));
    assert_eq!(outcome(SMALL, (DISCARD, 0), (&segment(15, 2, 0), 0)), FAILED);
}

/// With an unchecked addition, these end at sectors 0 and 1.
#[test]
fn range_whose_end_overflows_fails() {
    assert_eq!(outcome(SMALL, (OUT, u64::MAX), (&[1; 512], 0)), FAILED);
    assert_eq!(outcome(SMALL, (WRITE_ZEROES, 0), (&segment(u64::MAX, 2, 0), 0)), FAILED);
}

/// 1 GiB and 32 MiB, as in the configuration.
#[test]
fn range_of_the_most_sectors_is_changed_and_no_longer_one() {
    assert_eq!(outcome(LARGE, (DISCARD, 0), (&segment(0, 1 << 21, 0), 0)), is("discard 0..1073741824"));
    assert_eq!(outcome(LARGE, (DISCARD, 0), (&segment(0, (1 << 21) + 1, 0), 0)), FAILED);
    assert_eq!(outcome(LARGE, (WRITE_ZEROES, 0), (&segment(0, 1 << 16, 0), 0)), is("zero 0..33554432"));
    assert_eq!(outcome(LARGE, (WRITE_ZEROES, 0), (&segment(0, (1 << 16) + 1, 0), 0)), FAILED);
}

/// Even if its driver accepted features that such a disk doesn't offer.
#[test]
fn read_only_disk_is_read_and_never_changed() {
    let terms = Terms { read_only: true, ..SMALL };
    assert_eq!(outcome(terms, (IN, 0), (&[], 512)), is("read 512 bytes at 0"));
    assert_eq!(outcome(terms, (FLUSH, 0), (&[], 0)), is("flush"));
    assert_eq!(outcome(terms, (OUT, 0), (&[1; 512], 0)), FAILED);
    assert_eq!(outcome(terms, (DISCARD, 0), (&segment(8, 4, 0), 0)), FAILED);
    assert_eq!(outcome(terms, (WRITE_ZEROES, 0), (&segment(8, 4, 0), 0)), FAILED);
}

/// The responses to a flush, a discard and a write-zeroes request with these features.
fn outcomes_with(features: u64) -> [Result<String, Status>; 3] {
    let terms = Terms { features, ..SMALL };
    [
        outcome(terms, (FLUSH, 0), (&[], 0)),
        outcome(terms, (DISCARD, 0), (&segment(8, 4, 0), 0)),
        outcome(terms, (WRITE_ZEROES, 0), (&segment(8, 4, 0), 0)),
    ]
}

#[test]
fn request_whose_feature_was_not_taken_is_unsupported() {
    let (flush, discard, zeroes) = (is("flush"), is("discard 4096..6144"), is("zero 4096..6144"));
    assert_eq!(outcomes_with(1 << VIRTIO_BLK_F_FLUSH), [flush, UNSUPPORTED, UNSUPPORTED]);
    assert_eq!(outcomes_with(1 << VIRTIO_BLK_F_DISCARD), [UNSUPPORTED, discard, UNSUPPORTED]);
    assert_eq!(outcomes_with(1 << VIRTIO_BLK_F_WRITE_ZEROES), [UNSUPPORTED, UNSUPPORTED, zeroes]);
}

#[test]
fn chain_without_a_whole_header_fails_and_one_without_a_status_is_a_fault() {
    let cut = LooseChain::new(&[&header(FLUSH, 0)[..15]], &[1]);
    let cut = cut.chain();
    assert_eq!(parse(&cut, &SMALL).unwrap().request.err(), Some(Status::Failed));
    let mute = LooseChain::new(&[&header(FLUSH, 0)], &[]);
    let fault = Fault::Request("a disk request has no room for its status");
    assert_eq!(parse(&mute.chain(), &SMALL).err(), Some(fault));
}

/// Bytes moved by a request, and its work with ordinary and durable writes.
fn lengths(request: (u32, u64), buffers: (&[u8], u32)) -> (u64, u64, u64) {
    let look =
        |request: &Request<'_>| (request.moved_len(), request.work(Durable::No), request.work(Durable::Yes));
    parsed(LARGE, request, buffers, look).unwrap()
}

/// A flush, also that of a durable write, counts as 1 MiB moved; of a discard 32 bytes count as one.
#[test]
fn work_is_what_is_moved_and_the_flush() {
    const MIB: u64 = 1 << 20;
    assert_eq!(lengths((IN, 1), (&[], 1024)), (1024, 1024, 1024));
    assert_eq!(lengths((OUT, 1), (&[1; 512], 0)), (512, 512, MIB + 512));
    assert_eq!(lengths((FLUSH, 0), (&[], 0)), (0, MIB, MIB));
    assert_eq!(lengths((GET_ID, 0), (&[], 20)), (0, 0, 0));
    assert_eq!(lengths((DISCARD, 0), (&segment(64, 1 << 12, 0), 0)), (0, MIB / 16, MIB / 16));
    assert_eq!(lengths((WRITE_ZEROES, 0), (&segment(64, 2, 0), 0)), (1024, 1024, MIB + 1024));
}
