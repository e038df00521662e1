//! Property tests of the whole crate on malformed files.

use std::io::Cursor;
use std::ops::Range;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_arch::layout;
use vmm_memory::GuestRam;

use crate::testing::{bzimage, vmlinux};
use crate::{BootPlan, BootSpec, InitrdFile, KernelFile, KernelImage};

/// RAM for both test kernels, which end at or below 3 MiB, and an initrd.
const RAM_LEN: u64 = 4 << 20;

/// Inspects, plans and loads `file` with each protocol that it supports. What can be planned must load, and
/// every byte that is written must be inside the plan.
fn boot(file: &[u8], initrd_len: u64) {
    let Ok(image) = KernelImage::inspect(&mut Cursor::new(file)) else { return };
    assert!(image.protocols().contains(&image.default_protocol()));
    let ranges = layout::ram_ranges(RAM_LEN);
    for protocol in image.protocols() {
        let spec = BootSpec {
            protocol: Some(protocol),
            initrd_len: Some(initrd_len),
            cmdline: "quiet",
            ..BootSpec::new(&image, &ranges)
        };
        let Ok(plan) = BootPlan::new(&spec) else { continue };
        let ram = GuestRam::new(&ranges).expect("4 MiB");
        let initrd = vec![0x5a; initrd_len as usize];
        let loaded = plan.load(
            ram.memory(),
            &mut KernelFile::new(Cursor::new(file)),
            Some(&mut InitrdFile::new(Cursor::new(&initrd))),
        );
        assert!(loaded.is_ok(), "planned, but not loaded: {loaded:?}");
        assert_zero_outside(&ram, plan.placements().into_iter().map(|p| p.range));
    }
}

fn assert_zero_outside(ram: &GuestRam, written: impl Iterator<Item = Range<u64>>) {
    let mut bytes = vec![0; RAM_LEN as usize];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).expect("RAM");
    for range in written {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    let stray = bytes.iter().position(|byte| *byte != 0);
    assert_eq!(stray, None, "a byte outside the plan");
}

/// `file` with some bytes changed, mostly in the headers, and possibly truncated.
fn damaged(file: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = file.len();
    let place = prop_oneof![4 => 0..len.min(0x270), 1 => 0..len];
    let byte = prop_oneof![Just(0_u8), Just(0xff), Just(0x80), Just(1), any::<u8>()];
    let flips = prop::collection::vec((place, byte), 0..6);
    let cut = prop_oneof![4 => Just(len), 1 => 0..len];
    (flips, cut).prop_map(move |(flips, cut)| {
        let mut file = file.clone();
        for (at, byte) in flips {
            file[at] = byte;
        }
        file.truncate(cut);
        file
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..4096)) {
        boot(&file, 1);
    }

    #[test]
    fn random_bytes_behind_an_elf_magic_never_panic(rest in prop::collection::vec(any::<u8>(), 0..1024)) {
        boot(&[b"\x7fELF\x02\x01\x01\0", &rest[..]].concat(), 1);
    }

    #[test]
    fn damaged_elf_writes_only_what_was_planned(file in damaged(vmlinux()), initrd_len in 0u64..0x20_0000) {
        boot(&file, initrd_len);
    }

    #[test]
    fn damaged_bzimage_writes_only_what_was_planned(file in damaged(bzimage()), initrd_len in 0u64..0x20_0000) {
        boot(&file, initrd_len);
    }
}
