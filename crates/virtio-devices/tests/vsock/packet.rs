//! Encoding of packets.

use proptest::prelude::*;
use vmm_virtio::testing::LooseChain;
use vmm_virtio_devices::vsock::packet::{HEADER_LEN, HOST_CID, Header, Op, Refusal, TYPE_STREAM, parse};

use super::CID;

/// Each byte is its offset plus 1, so that all fields differ.
const BYTES: [u8; HEADER_LEN] = {
    let mut bytes = [0; HEADER_LEN];
    let mut at = 0;
    while at < HEADER_LEN {
        bytes[at] = at as u8 + 1;
        at += 1;
    }
    bytes
};

#[test]
fn header_has_its_fields_where_the_specification_has_them() {
    let header = Header {
        src_cid: 0x0807_0605_0403_0201,
        dst_cid: 0x100f_0e0d_0c0b_0a09,
        src_port: 0x1413_1211,
        dst_port: 0x1817_1615,
        len: 0x1c1b_1a19,
        kind: 0x1e1d,
        op: 0x201f,
        flags: 0x2423_2221,
        buf_alloc: 0x2827_2625,
        fwd_cnt: 0x2c2b_2a29,
    };
    assert_eq!(Header::from_bytes(&BYTES), header);
    assert_eq!(header.to_bytes(), BYTES);
}

proptest! {
    #[test]
    fn header_of_any_bytes_gives_them_back(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN)) {
        let bytes: [u8; HEADER_LEN] = bytes.try_into().unwrap();
        prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn packet_of_any_fields_in_any_pieces_is_whole_or_refused(
        kind in prop::sample::select(vec![TYPE_STREAM, 2, 0xffff]),
        op in 0_u16..10,
        len in prop_oneof![0_u32..100, Just(u32::MAX)],
        cids in prop::sample::select(vec![(u64::from(CID), HOST_CID), (0, HOST_CID), (u64::from(CID), 3)]),
        data in prop::collection::vec(any::<u8>(), 0..100),
        cut in 0_usize..150,
    ) {
        let (src_cid, dst_cid) = cids;
        let header = Header { src_cid, dst_cid, len, kind, op, src_port: 5, ..Header::default() };
        let bytes = [&header.to_bytes()[..], &data].concat();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let chain = LooseChain::new(&[first, second], &[]);
        let is_ours = (src_cid, dst_cid) == (CID.into(), HOST_CID);
        let carries = op == Op::Rw as u16;
        match parse(&chain.chain(), CID) {
            Ok(packet) => {
                prop_assert!(is_ours && kind == TYPE_STREAM && (1..=7).contains(&op));
                prop_assert_eq!(packet.header, header);
                let len = if carries { len as usize } else { 0 };
                let mut bytes = vec![0; len];
                prop_assert_eq!(packet.data.len(), len as u64);
                packet.data.read(&mut bytes).unwrap();
                prop_assert_eq!(&bytes, &data[..len]);
            }
            Err(Refusal::Drop) => prop_assert!(!is_ours || op == Op::Rst as u16),
            Err(Refusal::Stray(header)) => prop_assert!(is_ours && header.kind != TYPE_STREAM),
            Err(Refusal::Broken(header)) => {
                let is_unknown = Op::from_number(header.op).is_none();
                prop_assert!(is_unknown || carries && len as usize > data.len());
            }
        }
    }
}
