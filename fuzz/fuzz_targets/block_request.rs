//! Block requests: for any chain from a driver, a parsed request stays within the disk.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_virtio::testing::LooseChain;
use vmm_virtio_devices::block::request::{Request, SECTOR_LEN, SERIAL_LEN, Terms, parse};

/// 40 MiB: more than one request may zero, and not a power of two.
const SECTORS: u64 = 80 << 10;

/// VIRTIO_BLK_T_IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, and an invalid type.
const KINDS: [u8; 7] = [0, 1, 4, 8, 11, 13, 99];

fuzz_target!(|input: (bool, u64, u8, u8, Vec<u8>, Vec<u16>)| {
    let (read_only, features, cut, kind, mut bytes, writable) = input;
    // Otherwise most headers would have an unknown type.
    if let Some(header) = bytes.get_mut(..4) {
        header.copy_from_slice(&[KINDS[usize::from(kind) % KINDS.len()], 0, 0, 0]);
    }
    let (first, second) = bytes.split_at(bytes.len().min(cut.into()));
    let writable: Vec<u32> = writable.into_iter().map(u32::from).collect();
    let chain = LooseChain::new(&[first, second], &writable);
    let chain = chain.chain();
    let terms = Terms { sectors: SECTORS, read_only, features };
    let Ok(parsed) = parse(&chain, &terms) else {
        assert!(chain.writable().is_empty(), "a chain with a status byte is parsed");
        return;
    };
    assert_eq!(parsed.status.len(), 1);
    let Ok(request) = parsed.request else { return };
    let inside = |offset: u64, len: u64| {
        assert!(offset.is_multiple_of(SECTOR_LEN) && len.is_multiple_of(SECTOR_LEN));
        assert!(offset.checked_add(len).is_some_and(|end| end <= SECTORS * SECTOR_LEN));
    };
    match request {
        Request::Read { offset, into } => {
            inside(offset, into.len());
            assert_eq!(into.len() + 1, chain.writable().len());
        }
        Request::Write { offset, from } => {
            assert!(!read_only);
            inside(offset, from.len());
        }
        Request::Discard { range } | Request::WriteZeroes { range, .. } => {
            assert!(!read_only);
            inside(range.start, range.end - range.start);
        }
        Request::Identify { into } => assert_eq!(into.len(), SERIAL_LEN as u64),
        Request::Flush => {}
    }
});
