//! Room for the data passed to a multiboot kernel, between its tables in low memory.

use vmm_arch::layout;

/// Maximum number of memory map entries, up to the module list.
pub(crate) const MAX_MAP_ENTRIES: usize =
    ((layout::MULTIBOOT_MODULES - layout::MULTIBOOT_MEMORY_MAP) as usize) / MAP_ENTRY_LEN;
/// Maximum number of modules, up to the strings.
pub(crate) const MAX_MODULES: usize =
    ((layout::MULTIBOOT_STRINGS - layout::MULTIBOOT_MODULES) as usize) / MODULE_LEN;
/// Maximum total length of the modules' strings with their NULs, in bytes.
pub(crate) const MAX_STRINGS_LEN: u64 = layout::ZERO_PAGE - layout::MULTIBOOT_STRINGS;
/// Length of a memory map entry, including its size field, which doesn't count itself.
pub(crate) const MAP_ENTRY_LEN: usize = 24;
/// Length of an entry of the module list.
pub(crate) const MODULE_LEN: usize = 16;
