//! What the kernel targets share: a boot from a file up to the first instruction, without a processor.
//!
//! Run one with `cargo +nightly fuzz run kernel_elf`. The targets stamp magic numbers onto their input, so
//! they need no seeds.

use std::io::Cursor;
use std::ops::Range;

use vmm_arch::layout;
use vmm_boot::{BootPlan, BootSpec, KernelImage};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

/// Small, so that its whole contents can be looked at after each run.
const RAM_LEN: u64 = 4 << 20;

/// Inspects, plans and loads `file` by each protocol that it offers.
///
/// # Panics
/// The crate panics, what can be planned can't be loaded, or a byte is written outside the plan.
pub fn boot(file: &[u8]) {
    let Ok(image) = KernelImage::inspect(&mut Cursor::new(file)) else { return };
    let ranges = layout::ram_ranges(RAM_LEN);
    let initrd = [0x5a; 5000];
    for protocol in image.protocols() {
        let spec = BootSpec {
            image: &image,
            protocol: Some(protocol),
            initrd_len: Some(initrd.len() as u64),
            cmdline: "quiet",
            ram: &ranges,
        };
        let Ok(plan) = BootPlan::new(&spec) else { continue };
        let ram = GuestRam::new(&ranges).expect("4 MiB of memory");
        plan.load(ram.memory(), &mut Cursor::new(file), Some(&mut Cursor::new(&initrd[..])))
            .expect("what can be planned can be loaded");
        check_writes(&ram, plan.placements().into_iter().map(|placement| placement.range));
    }
}

fn check_writes(ram: &GuestRam, planned: impl Iterator<Item = Range<u64>>) {
    let mut bytes = vec![0; RAM_LEN as usize];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).expect("all of RAM");
    for range in planned {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    // Page by page: a comparison of slices is memcmp, which the sanitizer doesn't slow down byte by byte.
    let stray = bytes.chunks(4096).position(|page| page != [0; 4096]);
    assert_eq!(stray, None, "a page with a byte outside the plan");
}
