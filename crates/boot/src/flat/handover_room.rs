//! How much a multiboot kernel can be handed: the room between its tables in low memory.

use vmm_arch::layout;

/// Entries that fit between the memory map and the module list.
pub(crate) const MAX_MAP_ENTRIES: usize =
    ((layout::MULTIBOOT_MODULES - layout::MULTIBOOT_MEMORY_MAP) as usize) / MAP_ENTRY_LEN;
/// Entries that fit between the module list and the strings.
pub(crate) const MAX_MODULES: usize =
    ((layout::MULTIBOOT_STRINGS - layout::MULTIBOOT_MODULES) as usize) / MODULE_LEN;
/// Room for the modules' strings with their NULs.
pub(crate) const MAX_STRINGS_LEN: u64 = layout::ZERO_PAGE - layout::MULTIBOOT_STRINGS;
/// Length of an entry of the memory map with its size field in front, which doesn't count itself.
pub(crate) const MAP_ENTRY_LEN: usize = 24;
/// Length of an entry of the module list.
pub(crate) const MODULE_LEN: usize = 16;
