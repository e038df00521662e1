//! Errors in planning flat images.

use std::ops::Range;

use vmm_arch::flat::Mode;
use vmm_arch::layout::{self, HIGH_MEMORY, MMIO_GAP};

use crate::cmdline::CmdlineError;
use crate::platform::x86_64::flat::handover_room;

/// Why a flat image can't be started as configured. Settings have the names of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlatPlanError {
    /// An ELF can't be started in this mode.
    #[error("boot.flat.mode {:?}: an ELF is started in \"protected\", \"paged\" or \"long\" mode", mode.name())]
    ElfMode {
        /// The configured mode.
        mode: Mode,
    },
    /// A multiboot image can't be started in this mode.
    #[error(
        "boot.flat.mode {:?}: a multiboot image is started in \"protected\" mode; remove the setting, or set \
         boot.flat.format to \"raw\" if it only looks like one",
        mode.name()
    )]
    MultibootMode {
        /// The configured mode.
        mode: Mode,
    },
    /// The image has fixed addresses, so its load address can't be configured.
    #[error("boot.flat.load_address: {what} says itself where it goes; remove the setting")]
    LoadAddressFixed {
        /// Name of the image's kind, with its article.
        what: &'static str,
    },
    /// The load address of a position-independent executable isn't page-aligned.
    #[error(
        "boot.flat.load_address {address:#x}: a position-independent executable is loaded at a multiple of 0x1000"
    )]
    LoadAddressUnaligned {
        /// The configured address.
        address: u64,
    },
    /// The load address is in the MMIO gap.
    #[error("boot.flat.load_address {address:#x} lies in the 32-bit MMIO gap {}; use one below it", Hex(&MMIO_GAP))]
    LoadAddressInGap {
        /// The configured address.
        address: u64,
    },
    /// The load address is above 4 GiB.
    #[error(
        "boot.flat.load_address {address:#x} lies above 4 GiB; use one below the 32-bit MMIO gap at {:#x}",
        MMIO_GAP.start
    )]
    LoadAddressTooHigh {
        /// The configured address.
        address: u64,
    },
    /// The load address is beyond the end of RAM.
    #[error(
        "boot.flat.load_address {address:#x} lies outside the guest's memory, which ends at {ram_end:#x}; use one \
         below that"
    )]
    LoadAddressOutside {
        /// The configured address.
        address: u64,
        /// End of the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// The image is larger than the RAM below the MMIO gap.
    #[error(
        "the image needs {len} bytes, but the guest's memory below the 32-bit MMIO gap has {ram_end}; {}",
        more_memory(*len)
    )]
    ImageTooLarge {
        /// Length of the image in memory, in bytes.
        len: u64,
        /// Length of the RAM below the MMIO gap, in bytes.
        ram_end: u64,
    },
    /// The image reaches into the MMIO gap.
    #[error(
        "the image at {} reaches into the 32-bit MMIO gap {}; {}",
        Hex(image),
        Hex(&MMIO_GAP),
        elsewhere(*movable)
    )]
    ImageInGap {
        /// Addresses of the image or of a segment.
        image: Range<u64>,
        /// Whether the load address can be configured.
        movable: bool,
    },
    /// The image is above 4 GiB.
    #[error(
        "the image at {} lies above 4 GiB, but has to lie below the 32-bit MMIO gap at {:#x}; {}",
        Hex(image),
        MMIO_GAP.start,
        elsewhere(*movable)
    )]
    ImageTooHigh {
        /// Addresses of the image or of a segment.
        image: Range<u64>,
        /// Whether the load address can be configured.
        movable: bool,
    },
    /// The image ends beyond the end of RAM.
    #[error(
        "the image at {} ends beyond the guest's memory, which ends at {ram_end:#x}; {}",
        Hex(image),
        more_memory(image.end)
    )]
    ImageOutside {
        /// Addresses of the image or of a segment.
        image: Range<u64>,
        /// End of the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// A table for a multiboot kernel is beyond the end of RAM.
    #[error(
        "the {what} at {} lies beyond the guest's memory, which ends at {ram_end:#x}; {}",
        Hex(table),
        more_memory(table.end)
    )]
    HandedOutside {
        /// Name of the table.
        what: &'static str,
        /// Addresses of the table.
        table: Range<u64>,
        /// End of the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// There is no free RAM for a table of the mode.
    #[error(
        "no room for the {what}, {len} bytes, beside the image and its stack; give the guest more memory, or let the image \
         bring tables (\"tables\": false)"
    )]
    TablesWithoutRoom {
        /// Name of the table.
        what: &'static str,
        /// Length of the table in bytes.
        len: u64,
    },
    /// The mode needs page tables, the image brings its own tables, and their address isn't configured.
    #[error(
        "boot.flat.page_tables: missing, and in {:?} mode the image brings page tables if \"tables\" is false; say where \
         they lie, or remove \"tables\"",
        mode.name()
    )]
    PageTablesMissing {
        /// The mode.
        mode: Mode,
    },
    /// Page tables are configured for a mode without paging.
    #[error("boot.flat.page_tables: {:?} mode has no paging; remove the setting", mode.name())]
    PageTablesUnused {
        /// The mode.
        mode: Mode,
    },
    /// The page tables aren't page-aligned.
    #[error("boot.flat.page_tables {address:#x}: page tables start at a multiple of 0x1000")]
    PageTablesUnaligned {
        /// The configured address.
        address: u64,
    },
    /// The page tables aren't inside the image.
    #[error(
        "boot.flat.page_tables {address:#x} lies outside the image's bytes at {}, and so there are no page tables; name \
         their address in the image, or remove \"tables\"",
        ranges(image)
    )]
    PageTablesOutside {
        /// The configured address.
        address: u64,
        /// The addresses filled from the file.
        image: Vec<Range<u64>>,
    },
    /// The image overlaps a table for a multiboot kernel.
    #[error("the image at {} overlaps the {what} at {}; {}", Hex(image), Hex(table), elsewhere(*movable))]
    Overlap {
        /// Addresses of the image or of a segment.
        image: Range<u64>,
        /// Name of the table.
        what: &'static str,
        /// Addresses of the table.
        table: Range<u64>,
        /// Whether the load address can be configured.
        movable: bool,
    },
    /// The image doesn't contain the reset vector.
    #[error(
        "the image at {} doesn't contain 0xffff0, where the processor starts in \"reset\" mode; link it so that its first jump \
         is 16 bytes before the end of a page, or load it where that comes to lie at 0xffff0 (boot.flat.load_address, \
         --load-address)",
        Hex(image)
    )]
    ResetVector {
        /// Addresses of the image.
        image: Range<u64>,
    },
    /// The image is too large for the memory below 1 MiB.
    #[error(
        "the image has {len} bytes; in \"reset\" mode it ends at or below 1 MiB and has at most {}",
        layout::RESET_IMAGE_END
    )]
    ResetImageTooLarge {
        /// Length of the image in bytes.
        len: u64,
    },
    /// An entry is configured in reset mode.
    #[error(
        "boot.flat.entry: in \"reset\" mode the processor starts at its reset vector; remove the setting"
    )]
    ResetEntry,
    /// A stack is configured in reset mode.
    #[error("boot.flat.stack: in \"reset\" mode the program sets its own stack; remove the setting")]
    ResetStack,
    /// The configured entry isn't inside the image.
    #[error("boot.flat.entry {entry:#x} lies outside the image's bytes at {}", ranges(image))]
    EntryOutside {
        /// The configured entry.
        entry: u64,
        /// The addresses filled from the file.
        image: Vec<Range<u64>>,
    },
    /// The image's own entry isn't inside the image.
    #[error(
        "the image's own entry {entry:#x} lies outside its bytes at {}; set boot.flat.entry",
        ranges(image)
    )]
    OwnEntryOutside {
        /// The image's entry.
        entry: u64,
        /// The addresses filled from the file.
        image: Vec<Range<u64>>,
    },
    /// The entry is above 1 MiB, which CS and IP can't address in real mode.
    #[error(
        "the entry {entry:#x} is above 1 MiB, out of reach in \"real\" mode; start the image below {HIGH_MEMORY:#x}"
    )]
    EntryTooHigh {
        /// The entry.
        entry: u64,
    },
    /// The configured stack isn't in RAM.
    #[error(
        "boot.flat.stack {stack:#x} lies outside the RAM at 0x0..{ram_end:#x}; use an address in it or its end"
    )]
    StackOutside {
        /// The configured stack.
        stack: u64,
        /// End of the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// The configured stack is out of reach in real mode, where SS is 0 and SP has 16 bits.
    #[error("boot.flat.stack {stack:#x} is out of reach in \"real\" mode; use at most 0x10000")]
    StackTooHigh {
        /// The configured stack.
        stack: u64,
    },
    /// The image covers the default stack.
    #[error(
        "the image at {} covers the default stack at {}; set boot.flat.stack (--stack)",
        Hex(image),
        Hex(stack)
    )]
    DefaultStackCovered {
        /// Addresses of the image or of a segment.
        image: Range<u64>,
        /// Addresses of the stack.
        stack: Range<u64>,
    },
    /// A command line is configured for an image that isn't multiboot.
    #[error("boot.cmdline: only a multiboot image takes a command line; remove the setting")]
    CmdlineUnused,
    /// Modules are configured for an image that isn't multiboot.
    #[error("boot.flat.modules: only a multiboot image takes modules; remove the setting")]
    ModulesUnused,
    /// The command line is invalid.
    #[error("boot.cmdline: {0}")]
    Cmdline(CmdlineError),
    /// The command line of a module is invalid.
    #[error("boot.flat.modules[{index}]: {error}")]
    ModuleCmdline {
        /// Index of the module.
        index: usize,
        /// What is wrong with it.
        error: CmdlineError,
    },
    /// A module is empty.
    #[error("boot.flat.modules[{index}] is empty")]
    ModuleEmpty {
        /// Index of the module.
        index: usize,
    },
    /// A module doesn't fit into the RAM below the MMIO gap.
    #[error(
        "boot.flat.modules[{index}] of {len} bytes doesn't fit into the {free} bytes that are free from {start:#x} on; {}",
        more_memory(start.saturating_add(*len))
    )]
    ModuleTooLarge {
        /// Index of the module.
        index: usize,
        /// Length of the module in bytes.
        len: u64,
        /// Address at which it would start.
        start: u64,
        /// Free bytes from there to the end of the RAM below the MMIO gap.
        free: u64,
    },
    /// There are more modules than the list has room for.
    #[error("boot.flat.modules: {count} modules; at most {} fit", handover_room::MAX_MODULES)]
    TooManyModules {
        /// Number of modules.
        count: usize,
    },
    /// The modules' command lines are too long in total.
    #[error(
        "boot.flat.modules: the command lines have {len} bytes with their NULs; at most {} fit",
        handover_room::MAX_STRINGS_LEN
    )]
    ModuleStrings {
        /// Total length with a NUL each, in bytes.
        len: u64,
    },
    /// The memory map has more entries than there is room for.
    #[error("a memory map of {count} entries; at most {} fit", handover_room::MAX_MAP_ENTRIES)]
    MemoryMap {
        /// Number of entries.
        count: usize,
    },
}

/// Formats a range of addresses for messages.
pub(crate) struct Hex<'a>(pub(crate) &'a Range<u64>);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.0.start, self.0.end)
    }
}

fn ranges(ranges: &[Range<u64>]) -> String {
    ranges.iter().map(|range| Hex(range).to_string()).collect::<Vec<_>>().join(", ")
}

/// The remedy if something ends at `end`, beyond the RAM below the MMIO gap.
fn more_memory(end: u64) -> String {
    if end > MMIO_GAP.start {
        return format!("no guest has more than {} there, so use a smaller one", MMIO_GAP.start);
    }
    if end < 1 << 20 {
        // Rounded up to whole pages.
        return format!("give the guest at least {} KiB", end.div_ceil(4 << 10) * 4);
    }
    format!("give the guest at least {} MiB", end.div_ceil(1 << 20))
}

fn elsewhere(movable: bool) -> &'static str {
    if movable { "load it elsewhere (boot.flat.load_address)" } else { "link it elsewhere" }
}
