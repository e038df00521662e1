//! What to start as a flat image, how, and on what.

use std::ops::Range;

use vmm_arch::flat::Mode;

use crate::flat::image::FlatImage;

/// What to start, how, and on what.
#[derive(Clone, Copy, Debug)]
pub struct FlatSpec<'a> {
    /// The inspected image.
    pub image: &'a FlatImage,
    /// Guest-physical address of a raw image's first byte, or of the page of a position-independent
    /// executable's first one. If `None`: 0 in real mode; in reset mode where it ends at 1 MiB, rounded down to a
    /// page; else 1 MiB.
    pub load_address: Option<u64>,
    /// How to start it; [`FlatImage::default_mode`] if `None`.
    pub mode: Option<Mode>,
    /// Guest-physical address of the first instruction; the start of a raw image, or the image's own entry,
    /// if `None`. Not in reset mode.
    pub entry: Option<u64>,
    /// First address above the stack; [`layout::BOOT_STACK`](vmm_arch::layout::BOOT_STACK), or the end of RAM if that is lower, if `None`. Not in
    /// reset mode.
    pub stack: Option<u64>,
    /// Who provides the tables that the processor starts with.
    pub tables: TableSource,
    /// A multiboot image's command line, as it is: those that take its first word for a file name need one.
    pub cmdline: Option<&'a str>,
    /// A multiboot image's modules.
    pub modules: &'a [ModuleSpec<'a>],
    /// The guest's RAM, as [`layout::ram_ranges`](vmm_arch::layout::ram_ranges) gives it.
    pub ram: &'a [Range<u64>],
}

/// A file that a multiboot kernel finds in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec<'a> {
    /// Its length in bytes.
    pub len: u64,
    /// The string that goes with it.
    pub cmdline: &'a str,
}

/// Who provides the GDT, the IDT and the page tables that the processor starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableSource {
    /// The plan: at [`Tables::LOW`](vmm_arch::flat::Tables::LOW), or where that is taken at the first free place.
    #[default]
    Plan,
    /// The image, as far as there are any: see [`Tables::Own`](vmm_arch::flat::Tables::Own).
    Image {
        /// Where it has its PML4 or page directory; needed in a mode with paging, refused in any other.
        page_tables: Option<u64>,
    },
}
