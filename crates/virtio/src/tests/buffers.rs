//! Buffers against a model: a vector of bytes.

use std::ops::Range;

use proptest::prelude::*;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use crate::segment::Segment;
use crate::{Buffers, Fault};

/// Two regions that touch at 0x2000.
const RAM: [Range<u64>; 2] = [0..0x2000, 0x2000..0x4000];
const LEN: usize = 0x4000;

/// RAM in which each byte depends on its address.
fn ram() -> (GuestRam, Vec<u8>) {
    let ram = GuestRam::new(&RAM).unwrap();
    let bytes: Vec<_> = (0..LEN).map(|gpa| (gpa ^ (gpa >> 8)) as u8).collect();
    ram.memory().write_slice(&bytes, GuestAddress(0)).unwrap();
    (ram, bytes)
}

fn all(ram: &GuestRam) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// Segments that may overlap, many of them across the regions' border.
fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let near = (0x1fc0_u64..0x2040, 1_u32..0x80);
    let anywhere = (0_u64..0x3f00, 1_u32..0x100);
    let segment = prop_oneof![near, anywhere].prop_map(|(gpa, len)| Segment { gpa, len });
    prop::collection::vec(segment, 0..8)
}

/// Disjoint segments in ascending order.
fn apart() -> impl Strategy<Value = Vec<Segment>> {
    prop::collection::vec((0_u64..0x200, 1_u32..0x300), 0..8).prop_map(|pieces| {
        let mut next = 0x1c00;
        let place = |(gap, len): (u64, u32)| {
            let gpa = next + gap;
            next = gpa + u64::from(len);
            Segment { gpa, len }
        };
        pieces.into_iter().map(place).collect()
    })
}

/// The addresses of the bytes, in order.
fn addresses(segments: &[Segment]) -> Vec<usize> {
    segments
        .iter()
        .flat_map(|segment| segment.gpa..segment.gpa + u64::from(segment.len))
        .map(|gpa| gpa as usize)
        .collect()
}

fn read(buffers: &Buffers<'_>) -> Vec<u8> {
    let mut bytes = vec![0; buffers.len() as usize];
    buffers.read(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn read_gives_the_bytes_in_their_order(segments in segments(), part in 0.0..=1.0) {
        let (ram, bytes) = ram();
        let model: Vec<_> = addresses(&segments).into_iter().map(|gpa| bytes[gpa]).collect();
        let buffers = Buffers::new(&ram, &segments);
        prop_assert_eq!(buffers.len(), model.len() as u64);
        prop_assert_eq!(read(&buffers), model.clone());
        let mut first = vec![0; (model.len() as f64 * part) as usize];
        buffers.read(&mut first).unwrap();
        prop_assert_eq!(&first[..], &model[..first.len()]);
    }

    #[test]
    fn split_gives_what_is_before_and_what_is_after(segments in segments(), cuts in prop::collection::vec(0.0..=1.0, 1..5)) {
        let (ram, bytes) = ram();
        let mut model: Vec<_> = addresses(&segments).into_iter().map(|gpa| bytes[gpa]).collect();
        let mut buffers = Buffers::new(&ram, &segments);
        for cut in cuts {
            let at = (model.len() as f64 * cut) as usize;
            let (first, rest) = buffers.split_at(at as u64).unwrap();
            let (front, end) = buffers.split_end((model.len() - at) as u64).unwrap();
            prop_assert_eq!(read(&first), &model[..at]);
            prop_assert_eq!(read(&rest), &model[at..]);
            prop_assert_eq!((read(&front), read(&end)), (read(&first), read(&rest)));
            // The rest first, then the other part: parts of parts are right, too.
            let is_even = at.is_multiple_of(2);
            buffers = if is_even { rest } else { first };
            model = if is_even { model.split_off(at) } else { model[..at].to_vec() };
        }
        prop_assert!(buffers.split_at(model.len() as u64 + 1).is_none());
        prop_assert!(buffers.split_end(model.len() as u64 + 1).is_none());
    }

    #[test]
    fn write_changes_its_bytes_and_no_others(segments in apart(), from in 0.0..=1.0, to in 0.0..=1.0) {
        let (ram, mut model) = ram();
        let addresses = addresses(&segments);
        let len = addresses.len() as f64;
        let (start, count) = ((len * from) as usize, (len * (1.0 - from) * to) as usize);
        let (_, rest) = Buffers::new(&ram, &segments).split_at(start as u64).unwrap();
        let written: Vec<_> = (0..count).map(|n| !(n as u8)).collect();
        rest.write(&written).unwrap();
        for (gpa, byte) in addresses[start..].iter().zip(&written) {
            model[*gpa] = *byte;
        }
        prop_assert!(all(&ram) == model);
    }

    #[test]
    fn slices_are_all_of_it(segments in segments()) {
        let (ram, bytes) = ram();
        let model: Vec<_> = addresses(&segments).into_iter().map(|gpa| bytes[gpa]).collect();
        let mut seen = Vec::new();
        Buffers::new(&ram, &segments).slices(|slice| {
            let mut piece = vec![0; slice.len()];
            slice.copy_to(&mut piece[..]);
            seen.extend(piece);
            Ok(())
        }).unwrap();
        prop_assert_eq!(seen, model);
    }
}

#[test]
fn read_of_more_than_there_is_says_so() {
    let (ram, _) = ram();
    let segments = [Segment { gpa: 0, len: 3 }];
    let buffers = Buffers::new(&ram, &segments);
    assert_eq!(buffers.read(&mut [0; 4]), Err(Fault::TooShort { len: 3, needed: 4 }));
    assert_eq!(buffers.read_obj::<u32>(), Err(Fault::TooShort { len: 3, needed: 4 }));
}

#[test]
fn write_of_more_than_there_is_says_so_and_writes_nothing() {
    let (ram, bytes) = ram();
    let segments = [Segment { gpa: 0x10, len: 3 }];
    let error = Buffers::new(&ram, &segments).write(&[0xaa; 4]);
    assert_eq!(error, Err(Fault::TooShort { len: 3, needed: 4 }));
    assert!(all(&ram) == bytes);
}

#[test]
fn slices_end_with_the_error_of_the_caller() {
    let (ram, _) = ram();
    let segments = [Segment { gpa: 0x1fff, len: 2 }, Segment { gpa: 0, len: 1 }];
    let mut count = 0;
    let fault = Fault::Request("enough");
    let error = Buffers::new(&ram, &segments).slices(|_| {
        count += 1;
        if count < 2 { Ok(()) } else { Err(fault) }
    });
    assert_eq!((error, count), (Err(fault), 2));
}

#[test]
fn buffers_of_nothing_can_be_read_and_split() {
    let (ram, _) = ram();
    let buffers = Buffers::new(&ram, &[]);
    buffers.read(&mut []).unwrap();
    buffers.write(&[]).unwrap();
    let (first, rest) = buffers.split_at(0).unwrap();
    assert!(first.is_empty() && rest.is_empty());
    assert!(buffers.split_at(1).is_none());
}
