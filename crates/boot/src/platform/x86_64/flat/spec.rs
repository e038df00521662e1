//! The input of planning a flat image.

use std::ops::Range;

use vmm_arch::flat::Mode;

use crate::platform::x86_64::flat::image::FlatImage;

/// What to start, how, and on which RAM. Start from [`FlatSpec::new`]: `FlatSpec { entry: Some(0x1000), ..FlatSpec::new(&image,
/// &ram) }`.
#[derive(Clone, Copy, Debug)]
pub struct FlatSpec<'a> {
    /// The inspected image.
    pub image: &'a FlatImage,
    /// Guest-physical address of a raw image, or of the first page of a position-independent executable.
    /// Default: 0 in real mode; in reset mode such that it ends at 1 MiB, rounded down to a page; otherwise 1
    /// MiB.
    pub load_address: Option<u64>,
    /// The mode. Default: [`FlatImage::default_mode`].
    pub mode: Option<Mode>,
    /// Guest-physical address of the first instruction. Default: the start of a raw image, or the image's own
    /// entry. Not allowed in reset mode.
    pub entry: Option<u64>,
    /// Initial stack pointer, just above the stack. Default:
    /// [`layout::BOOT_STACK`](vmm_arch::layout::BOOT_STACK), or the end of RAM if that is lower. Not allowed
    /// in reset mode.
    pub stack: Option<u64>,
    /// Who provides the initial descriptor and page tables. Default: the plan.
    pub tables: TableSource,
    /// A multiboot image's command line; refused for others. Default: none. It is passed unchanged: a kernel that skips the first word as a file name
    /// needs one there.
    pub cmdline: Option<&'a str>,
    /// A multiboot image's modules; refused for others. Default: none.
    pub modules: &'a [ModuleSpec<'a>],
    /// The guest's RAM, as returned by [`layout::ram_ranges`](vmm_arch::layout::ram_ranges).
    pub ram: &'a [Range<u64>],
}

impl<'a> FlatSpec<'a> {
    /// A start as the image is made for, at the default addresses.
    pub fn new(image: &'a FlatImage, ram: &'a [Range<u64>]) -> Self {
        Self {
            image,
            load_address: None,
            mode: None,
            entry: None,
            stack: None,
            tables: TableSource::default(),
            cmdline: None,
            modules: &[],
            ram,
        }
    }
}

/// A module of a multiboot kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec<'a> {
    /// Length in bytes.
    pub len: u64,
    /// The module's command line.
    pub cmdline: &'a str,
}

/// Who provides the initial GDT, IDT and page tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableSource {
    /// The plan: at [`Tables::LOW`](vmm_arch::flat::Tables::LOW), or at the first free place if that is
    /// taken.
    #[default]
    Plan,
    /// The image, if it needs any: see [`Tables::Own`](vmm_arch::flat::Tables::Own).
    Image {
        /// Address of its PML4 or page directory; required in modes with paging, refused in others.
        page_tables: Option<u64>,
    },
}
