//! Why a flat image can't be started as asked.

use std::ops::Range;

use vmm_arch::flat::Mode;
use vmm_arch::layout::{self, HIGH_MEMORY, MMIO_GAP};

use crate::cmdline::CmdlineError;
use crate::flat::handover_room;

/// Why a flat image can't be started so. Settings are named as the configuration names them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlatPlanError {
    /// An ELF says itself what its code is.
    #[error("boot.flat.mode {:?}: an ELF is started in \"protected\", \"paged\" or \"long\" mode", mode.name())]
    ElfMode {
        /// What was asked for.
        mode: Mode,
    },
    /// The multiboot specification says how.
    #[error(
        "boot.flat.mode {:?}: a multiboot image is started in \"protected\" mode; remove the setting, or set \
         boot.flat.format to \"raw\" if it only looks like one",
        mode.name()
    )]
    MultibootMode {
        /// What was asked for.
        mode: Mode,
    },
    /// Fixed addresses.
    #[error("boot.flat.load_address: {what} says itself where it goes; remove the setting")]
    LoadAddressFixed {
        /// What the image is, with its article.
        what: &'static str,
    },
    /// An executable's own alignments count from a page's boundary.
    #[error(
        "boot.flat.load_address {address:#x}: a position-independent executable is loaded at a multiple of 0x1000"
    )]
    LoadAddressUnaligned {
        /// What was asked for.
        address: u64,
    },
    /// No RAM, whatever the guest's memory.
    #[error("boot.flat.load_address {address:#x} lies in the 32-bit MMIO gap {}; use one below it", Hex(&MMIO_GAP))]
    LoadAddressInGap {
        /// What was asked for.
        address: u64,
    },
    /// RAM, perhaps, but out of reach.
    #[error(
        "boot.flat.load_address {address:#x} lies above 4 GiB; use one below the 32-bit MMIO gap at {:#x}",
        MMIO_GAP.start
    )]
    LoadAddressTooHigh {
        /// What was asked for.
        address: u64,
    },
    /// More memory helps.
    #[error(
        "boot.flat.load_address {address:#x} lies outside the guest's memory, which ends at {ram_end:#x}; use one \
         below that"
    )]
    LoadAddressOutside {
        /// What was asked for.
        address: u64,
        /// First address behind the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// More than there is.
    #[error(
        "the image needs {len} bytes, but the guest's memory below the 32-bit MMIO gap has {ram_end}; {}",
        more_memory(*len)
    )]
    ImageTooLarge {
        /// Bytes that it occupies.
        len: u64,
        /// Length of the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// No RAM, whatever the guest's memory.
    #[error(
        "the image at {} reaches into the 32-bit MMIO gap {}; {}",
        Hex(image),
        Hex(&MMIO_GAP),
        elsewhere(*movable)
    )]
    ImageInGap {
        /// Where it goes, or one segment of it.
        image: Range<u64>,
        /// Whether a setting says where it goes.
        movable: bool,
    },
    /// RAM, perhaps, but out of reach.
    #[error(
        "the image at {} lies above 4 GiB, but has to lie below the 32-bit MMIO gap at {:#x}; {}",
        Hex(image),
        MMIO_GAP.start,
        elsewhere(*movable)
    )]
    ImageTooHigh {
        /// Where it goes, or one segment of it.
        image: Range<u64>,
        /// Whether a setting says where it goes.
        movable: bool,
    },
    /// More memory helps.
    #[error(
        "the image at {} ends beyond the guest's memory, which ends at {ram_end:#x}; {}",
        Hex(image),
        more_memory(image.end)
    )]
    ImageOutside {
        /// Where it goes, or one segment of it.
        image: Range<u64>,
        /// First address behind the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// More memory helps.
    #[error(
        "the {what} at {} lies beyond the guest's memory, which ends at {ram_end:#x}; {}",
        Hex(table),
        more_memory(table.end)
    )]
    HandedOutside {
        /// What a multiboot kernel is handed.
        what: &'static str,
        /// Where that is.
        table: Range<u64>,
        /// First address after the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// More memory helps, or tables of the image's own.
    #[error(
        "no room for the {what}, {len} bytes, beside the image and its stack; give the guest more memory, or let the image \
         bring tables (\"tables\": false)"
    )]
    TablesWithoutRoom {
        /// Which table.
        what: &'static str,
        /// Its length.
        len: u64,
    },
    /// CR3 would be anything.
    #[error(
        "boot.flat.page_tables: missing, and in {:?} mode the image brings page tables if \"tables\" is false; say where \
         they lie, or remove \"tables\"",
        mode.name()
    )]
    PageTablesMissing {
        /// The mode.
        mode: Mode,
    },
    /// Nothing would look there.
    #[error("boot.flat.page_tables: {:?} mode has no paging; remove the setting", mode.name())]
    PageTablesUnused {
        /// The mode.
        mode: Mode,
    },
    /// CR3 holds the number of a page.
    #[error("boot.flat.page_tables {address:#x}: page tables start at a multiple of 0x1000")]
    PageTablesUnaligned {
        /// What was asked for.
        address: u64,
    },
    /// No page tables there.
    #[error(
        "boot.flat.page_tables {address:#x} lies outside the image's bytes at {}, and so there are no page tables; name \
         their address in the image, or remove \"tables\"",
        ranges(image)
    )]
    PageTablesOutside {
        /// What was asked for.
        address: u64,
        /// The addresses that are filled from the file.
        image: Vec<Range<u64>>,
    },
    /// Two things at one place.
    #[error("the image at {} overlaps the {what} at {}; {}", Hex(image), Hex(table), elsewhere(*movable))]
    Overlap {
        /// Where the image goes, or one segment of it.
        image: Range<u64>,
        /// What it overlaps.
        what: &'static str,
        /// Where that is.
        table: Range<u64>,
        /// Whether a setting says where the image goes.
        movable: bool,
    },
    /// Nothing at the reset vector.
    #[error(
        "the image at {} doesn't contain 0xffff0, where the processor starts in \"reset\" mode; link it so that its first jump \
         is 16 bytes before the end of a page, or load it where that comes to lie at 0xffff0 (boot.flat.load_address, \
         --load-address)",
        Hex(image)
    )]
    ResetVector {
        /// Where it goes.
        image: Range<u64>,
    },
    /// The image ends at or below 1 MiB, and starts at 0 or above.
    #[error(
        "the image has {len} bytes; in \"reset\" mode it ends at or below 1 MiB and has at most {}",
        layout::RESET_IMAGE_END
    )]
    ResetImageTooLarge {
        /// Its length.
        len: u64,
    },
    /// The processor decides.
    #[error(
        "boot.flat.entry: in \"reset\" mode the processor starts at its reset vector; remove the setting"
    )]
    ResetEntry,
    /// The processor comes without one.
    #[error("boot.flat.stack: in \"reset\" mode the program sets its own stack; remove the setting")]
    ResetStack,
    /// Nothing to run there.
    #[error("boot.flat.entry {entry:#x} lies outside the image's bytes at {}", ranges(image))]
    EntryOutside {
        /// What was asked for.
        entry: u64,
        /// The addresses that are filled from the file.
        image: Vec<Range<u64>>,
    },
    /// The image leads nowhere.
    #[error(
        "the image's own entry {entry:#x} lies outside its bytes at {}; set boot.flat.entry",
        ranges(image)
    )]
    OwnEntryOutside {
        /// What the image says.
        entry: u64,
        /// The addresses that are filled from the file.
        image: Vec<Range<u64>>,
    },
    /// CS and IP hold no such address.
    #[error(
        "the entry {entry:#x} is above 1 MiB, out of reach in \"real\" mode; start the image below {HIGH_MEMORY:#x}"
    )]
    EntryTooHigh {
        /// Where the first instruction is.
        entry: u64,
    },
    /// Pushes would be lost.
    #[error(
        "boot.flat.stack {stack:#x} lies outside the RAM at 0x0..{ram_end:#x}; use an address in it or its end"
    )]
    StackOutside {
        /// What was asked for.
        stack: u64,
        /// First address behind the RAM below the MMIO gap.
        ram_end: u64,
    },
    /// SS is 0, and SP has 16 bits.
    #[error("boot.flat.stack {stack:#x} is out of reach in \"real\" mode; use at most 0x10000")]
    StackTooHigh {
        /// What was asked for.
        stack: u64,
    },
    /// The default is meant for small images.
    #[error(
        "the image at {} covers the default stack at {}; set boot.flat.stack (--stack)",
        Hex(image),
        Hex(stack)
    )]
    DefaultStackCovered {
        /// Where the image goes, or one segment of it.
        image: Range<u64>,
        /// Where the stack would grow.
        stack: Range<u64>,
    },
    /// Nothing would read it.
    #[error("boot.cmdline: only a multiboot image takes a command line; remove the setting")]
    CmdlineUnused,
    /// Nothing would read them.
    #[error("boot.flat.modules: only a multiboot image takes modules; remove the setting")]
    ModulesUnused,
    /// The command line isn't one.
    #[error("boot.cmdline: {0}")]
    Cmdline(CmdlineError),
    /// A module's string isn't one.
    #[error("boot.flat.modules[{index}]: {error}")]
    ModuleCmdline {
        /// Which module.
        index: usize,
        /// What is wrong with it.
        error: CmdlineError,
    },
    /// A module of 0 bytes.
    #[error("boot.flat.modules[{index}] is empty")]
    ModuleEmpty {
        /// Which module.
        index: usize,
    },
    /// More memory helps, unless there can't be more.
    #[error(
        "boot.flat.modules[{index}] of {len} bytes doesn't fit into the {free} bytes that are free from {start:#x} on; {}",
        more_memory(start.saturating_add(*len))
    )]
    ModuleTooLarge {
        /// Which module.
        index: usize,
        /// Its length.
        len: u64,
        /// Where it would start.
        start: u64,
        /// Bytes from there to the end of the RAM below the MMIO gap.
        free: u64,
    },
    /// The list has a fixed size.
    #[error("boot.flat.modules: {count} modules; at most {} fit", handover_room::MAX_MODULES)]
    TooManyModules {
        /// How many there are.
        count: usize,
    },
    /// The modules' strings have little room.
    #[error(
        "boot.flat.modules: the command lines have {len} bytes with their NULs; at most {} fit",
        handover_room::MAX_STRINGS_LEN
    )]
    ModuleStrings {
        /// Their lengths with a NUL each.
        len: u64,
    },
    /// The memory map has a fixed size.
    #[error("a memory map of {count} entries; at most {} fit", handover_room::MAX_MAP_ENTRIES)]
    MemoryMap {
        /// Entries that the RAM makes.
        count: usize,
    },
}

/// A range of addresses in messages.
pub(crate) struct Hex<'a>(pub(crate) &'a Range<u64>);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.0.start, self.0.end)
    }
}

fn ranges(ranges: &[Range<u64>]) -> String {
    ranges.iter().map(|range| Hex(range).to_string()).collect::<Vec<_>>().join(", ")
}

/// What to do when something ends at `end`, behind the RAM below the MMIO gap.
fn more_memory(end: u64) -> String {
    if end > MMIO_GAP.start {
        return format!("no guest has more than {} there, so use a smaller one", MMIO_GAP.start);
    }
    if end < 1 << 20 {
        // In whole pages, as memory is given.
        return format!("give the guest at least {} KiB", end.div_ceil(4 << 10) * 4);
    }
    format!("give the guest at least {} MiB", end.div_ceil(1 << 20))
}

fn elsewhere(movable: bool) -> &'static str {
    if movable { "load it elsewhere (boot.flat.load_address)" } else { "link it elsewhere" }
}
