//! The PVH start info (Xen, public/arch-x86/hvm/start_info.h).

use std::ops::Range;

use linux_loader::configurator::BootParams;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::GuestAddress;
use vmm_arch::e820::E820Entry;
use vmm_arch::layout;

/// The first version with a memory map.
const VERSION: u32 = 1;

/// Builds the start info, a memory map of at most 165 entries, and a module list with the initrd, if there is
/// one. The command line is at `cmdline`. `rsdp_paddr` is 0: the kernel searches for the RSDP as on any PC.
pub(crate) fn build(initrd: Option<Range<u64>>, cmdline: u64, e820: &[E820Entry]) -> BootParams {
    // Types have the same values as in e820.
    let map: Vec<_> = e820
        .iter()
        .map(|e| hvm_memmap_table_entry { addr: e.addr, size: e.len, type_: e.kind as u32, reserved: 0 })
        .collect();
    let modules: Vec<_> = initrd
        .map(|r| hvm_modlist_entry { paddr: r.start, size: r.end - r.start, ..Default::default() })
        .into_iter()
        .collect();
    let start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: modules.len() as u32,
        modlist_paddr: if modules.is_empty() { 0 } else { layout::PVH_MODULES },
        cmdline_paddr: cmdline,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&start_info, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    if !modules.is_empty() {
        params.set_modules(&modules, GuestAddress(layout::PVH_MODULES));
    }
    params
}
