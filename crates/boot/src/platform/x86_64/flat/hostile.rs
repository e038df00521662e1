//! Property tests on malformed flat images.

use std::io::Cursor;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_arch::flat::Mode;
use vmm_arch::layout;
use vmm_memory::GuestRam;

use crate::platform::x86_64::flat::image::FlatImage;
use crate::platform::x86_64::flat::plan::FlatPlan;
use crate::platform::x86_64::flat::spec::{FlatSpec, ModuleSpec};
use crate::platform::x86_64::flat::testing::{multiboot_elf, multiboot_raw, pie32, pie64, rela};

/// RAM for every test image, at 1 MiB, and for a module; small, because all of it is compared.
const RAM_LEN: u64 = 0x11_0000;

/// Inspects, plans and loads `file`, at its own address and at `load_address`. What can be planned must load,
/// and every byte that is written must be inside the plan.
fn start(file: &[u8], mode: Option<Mode>, load_address: u64) {
    let Ok(image) = FlatImage::inspect(&mut Cursor::new(file)) else { return };
    assert!(!image.to_string().is_empty());
    let ranges = layout::ram_ranges(RAM_LEN);
    let modules: &[ModuleSpec<'_>] = match image {
        FlatImage::Multiboot(_) => &[ModuleSpec { len: 5000, cmdline: "module" }],
        _ => &[],
    };
    for load_address in [None, Some(load_address)] {
        let stack = (mode != Some(Mode::Reset)).then_some(0x1_0000);
        let spec = FlatSpec::new(&image, &ranges);
        load(file, &FlatSpec { mode, load_address, stack, modules, ..spec });
    }
}

fn load(file: &[u8], spec: &FlatSpec<'_>) {
    let Ok(plan) = FlatPlan::new(spec) else { return };
    assert!(!plan.to_string().is_empty());
    let ram = GuestRam::new(spec.ram).expect("a little more than 1 MiB");
    let mut modules = vec![Cursor::new(&[0x5a; 5000][..]); spec.modules.len()];
    // Zeros at the reset vector, which plans can't know.
    if plan.check_contents(&mut Cursor::new(file)).is_err() {
        return;
    }
    let loaded = plan.load(ram.memory(), &mut Cursor::new(file), &mut modules);
    assert!(loaded.is_ok(), "planned, but not loaded: {loaded:?}");

    let mut bytes = vec![0; RAM_LEN as usize];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).expect("RAM");
    for range in plan.placements().into_iter().map(|placement| placement.range) {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    let stray = bytes.chunks(4096).position(|page| page != [0; 4096]);
    assert_eq!(stray, None, "a page with a byte outside the plan");
}

/// Any mode, or the image's default.
fn mode() -> impl Strategy<Value = Option<Mode>> {
    prop::option::of(prop::sample::select(Mode::ALL.to_vec()))
}

/// `file` with some bytes changed, mostly in the headers, and possibly truncated.
fn damaged(file: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = file.len();
    let place = prop_oneof![4 => 0..len.min(0xc0), 1 => 0..len];
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
    fn random_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..4096), mode in mode(), at: u64) {
        start(&file, mode, at);
    }

    #[test]
    fn random_bytes_at_any_place_in_ram_never_panic(
        file in prop::collection::vec(any::<u8>(), 1..4096),
        mode in mode(),
        at in 0..RAM_LEN,
    ) {
        start(&file, mode, at);
    }

    #[test]
    fn random_multiboot_addresses_never_panic(addresses: [u32; 5], at in 0usize..64) {
        start(&multiboot_raw(at * 4, addresses, 512), None, 0);
    }

    #[test]
    fn damaged_multiboot_elf_writes_only_what_was_planned(file in damaged(multiboot_elf(3))) {
        start(&file, None, 0x10_0000);
    }

    #[test]
    fn damaged_multiboot_addresses_write_only_what_was_planned(
        file in damaged(multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0x10_1000, 0x10_0020], 128)),
    ) {
        start(&file, None, 0x10_0000);
    }

    #[test]
    fn damaged_pie64_writes_only_what_was_planned(
        file in damaged(pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 8, 0x10))),
        mode in mode(),
        at in 0..RAM_LEN / 4096,
    ) {
        start(&file, mode, at * 4096);
    }

    #[test]
    fn damaged_pie32_writes_only_what_was_planned(
        file in damaged(pie32(&[(17, 0x100), (18, 8)], &[0x80_u32, 8].map(u32::to_le_bytes).concat())),
        mode in mode(),
        at in 0..RAM_LEN / 4096,
    ) {
        start(&file, mode, at * 4096);
    }

    #[test]
    fn any_relocation_writes_only_what_was_planned(at: u64, near in 0u64..0x200, addend: u64) {
        start(&pie64(&[(7, 0x100), (8, 24)], &rela(at, 8, addend)), None, 0);
        start(&pie64(&[(7, 0x100), (8, 24)], &rela(near, 8, addend)), None, 0);
    }
}
