//! Shared by the targets. Here for those that load a guest: everything from the file to the first instruction, without a vCPU.
//!
//! Run one with `cargo +nightly fuzz run kernel_elf`. The targets write magic numbers into their input, so
//! they need no seeds.

pub mod registers;
pub mod snapshot;

use std::io::Cursor;
use std::ops::Range;

use vmm_arch::flat::Mode;
use vmm_arch::layout;
use vmm_boot::{BootPlan, BootSpec, FlatImage, FlatPlan, FlatSpec, InitrdFile, KernelFile, KernelImage, ModuleSpec};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

/// Small, so that all of it can be checked after each run.
const RAM_LEN: u64 = 4 << 20;

/// Inspects, plans and loads `file` with each protocol that it supports.
///
/// # Panics
/// The crate panics, a valid plan can't be loaded, or a byte is written outside the plan.
pub fn boot(file: &[u8]) {
    let Ok(image) = KernelImage::inspect(&mut Cursor::new(file)) else { return };
    let ranges = layout::ram_ranges(RAM_LEN);
    let initrd = [0x5a; 5000];
    for protocol in image.protocols() {
        let spec = BootSpec {
            protocol: Some(protocol),
            initrd_len: Some(initrd.len() as u64),
            cmdline: "quiet",
            ..BootSpec::new(&image, &ranges)
        };
        let Ok(plan) = BootPlan::new(&spec) else { continue };
        let ram = GuestRam::new(&ranges).expect("4 MiB of memory");
        let mut initrd_file = InitrdFile::new(Cursor::new(&initrd[..]));
        plan.load(ram.memory(), &mut KernelFile::new(Cursor::new(file)), Some(&mut initrd_file))
            .expect("a valid plan can be loaded");
        check_writes(&ram, plan.placements().into_iter().map(|placement| placement.range));
    }
}

/// Inspects, plans and loads `file` as a flat image in each mode, at its own address and at `load_address`.
///
/// # Panics
/// The crate panics, a valid plan can't be loaded, or a byte is written outside the plan.
pub fn start(file: &[u8], load_address: u64) {
    let Ok(image) = FlatImage::inspect(&mut Cursor::new(file)) else { return };
    let ranges = layout::ram_ranges(RAM_LEN);
    let modules: &[ModuleSpec<'_>] = match image {
        FlatImage::Multiboot(_) => &[ModuleSpec { len: 5000, cmdline: "module" }],
        _ => &[],
    };
    for mode in Mode::ALL {
        for load_address in [None, Some(load_address)] {
            let spec = FlatSpec {
                load_address,
                mode: Some(mode),
                stack: (mode != Mode::Reset).then_some(0x1_0000),
                modules,
                ..FlatSpec::new(&image, &ranges)
            };
            let Ok(plan) = FlatPlan::new(&spec) else { continue };
            if plan.check_contents(&mut Cursor::new(file)).is_err() {
                continue;
            }
            let ram = GuestRam::new(&ranges).expect("4 MiB of memory");
            let mut files = vec![Cursor::new(&[0x5a; 5000][..]); modules.len()];
            plan.load(ram.memory(), &mut Cursor::new(file), &mut files).expect("a valid plan can be loaded");
            check_writes(&ram, plan.placements().into_iter().map(|placement| placement.range));
        }
    }
}

fn check_writes(ram: &GuestRam, planned: impl Iterator<Item = Range<u64>>) {
    let mut bytes = vec![0; RAM_LEN as usize];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).expect("all of RAM");
    for range in planned {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    // Page by page: comparing slices is a memcmp, which the sanitizer doesn't instrument for every byte.
    let stray = bytes.chunks(4096).position(|page| page != [0; 4096]);
    assert_eq!(stray, None, "a page with a byte outside the plan");
}
