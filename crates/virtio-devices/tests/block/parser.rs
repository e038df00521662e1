//! The parser by itself, with whatever a driver may say.

use proptest::prelude::*;
use vmm_virtio::testing::LooseChain;
use vmm_virtio_devices::block::request::{Request, SECTOR_LEN, Terms, parse};

use crate::disk::*;

/// 40 MiB: more than one request may zero.
const DISK: u64 = 80 << 10;

/// Sectors around what matters: the start, the end, and where a multiplication overflows.
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
    /// What comes out of it lies inside the disk, changes nothing that is read-only, and was the same in any pieces.
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
