//! A guest's vsock packets: for any chain, a parsed packet is from the guest, to the host, and has the length in its header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_virtio::testing::LooseChain;
use vmm_virtio_devices::vsock::packet::{HEADER_LEN, HOST_CID, Header, Op, Refusal, TYPE_STREAM, parse};

const CID: u32 = 3;

fuzz_target!(|input: (u8, u8, u8, u8, Vec<u8>)| {
    let (stamps, op, cut, second_cut, mut bytes) = input;
    // Otherwise most headers would have invalid addresses and operations.
    if let Some(header) = bytes.get_mut(..HEADER_LEN) {
        let mut stamp = |bit: u8, at: usize, value: &[u8]| {
            if stamps & 1 << bit == 0 {
                header[at..at + value.len()].copy_from_slice(value);
            }
        };
        stamp(0, 0, &u64::from(CID).to_le_bytes());
        stamp(1, 8, &HOST_CID.to_le_bytes());
        stamp(2, 28, &TYPE_STREAM.to_le_bytes());
        stamp(3, 30, &u16::from(op % 9).to_le_bytes());
        stamp(4, 26, &[0; 2]);
    }
    let (first, rest) = bytes.split_at(bytes.len().min(cut.into()));
    let (second, third) = rest.split_at(rest.len().min(second_cut.into()));
    let chain = LooseChain::new(&[first, second, third], &[100]);
    let chain = chain.chain();
    let whole = chain.readable().len();
    match parse(&chain, CID) {
        Ok(packet) => {
            let header = packet.header;
            assert_eq!((header.src_cid, header.dst_cid, header.kind), (CID.into(), HOST_CID, TYPE_STREAM));
            assert_eq!(Some(packet.op), Op::from_number(header.op));
            let len = if packet.op == Op::Rw { header.len.into() } else { 0 };
            assert_eq!(packet.data.len(), len);
            assert!(HEADER_LEN as u64 + len <= whole);
            let mut data = vec![0; len as usize];
            packet.data.read(&mut data).expect("the data has this length");
            assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        }
        Err(Refusal::Drop) => {}
        Err(Refusal::Stray(header) | Refusal::Broken(header)) => {
            assert_ne!(Op::from_number(header.op), Some(Op::Rst), "a reset is never answered");
            let reset = header.reset();
            assert_eq!((reset.src_cid, reset.dst_cid, reset.len), (HOST_CID, CID.into(), 0));
        }
    }
});
