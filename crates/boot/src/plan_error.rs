//! Why a kernel can't be booted as asked.

use std::ops::Range;

use vmm_arch::boot::Protocol;
use vmm_arch::layout;

use crate::cmdline::CmdlineError;
use crate::image::protocol_name;
use crate::placement::Placement;
use crate::zero_page;

/// Why a kernel can't be booted so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The kernel has no such entry.
    #[error("boot protocol {}: this kernel offers only {}", protocol_name(*asked), names(offered))]
    Protocol {
        /// What was asked for.
        asked: Protocol,
        /// What there is.
        offered: Vec<Protocol>,
    },
    /// The kernel would overwrite what it is told to read.
    #[error("the kernel starts at {start:#x}, below 1 MiB, where it is given its boot parameters")]
    KernelTooLow {
        /// Its first address.
        start: u64,
    },
    /// No amount of memory helps.
    #[error("the kernel ends at {end:#x}, beyond the start of the 32-bit MMIO gap at {:#x}", layout::MMIO_GAP.start)]
    KernelTooHigh {
        /// First address behind it.
        end: u64,
    },
    /// More memory helps.
    #[error(
        "the kernel needs memory up to {end:#x}, but it ends at {ram_end:#x}; give the guest at least {mib} MiB"
    )]
    TooLittleMemory {
        /// First address behind the kernel.
        end: u64,
        /// First address behind the RAM below the MMIO gap.
        ram_end: u64,
        /// The least memory that holds the kernel.
        mib: u64,
    },
    /// An initrd of 0 bytes.
    #[error("the initrd is empty")]
    InitrdEmpty,
    /// More memory helps.
    #[error(
        "an initrd of {len} bytes doesn't fit into the {free} bytes that are free behind the kernel; give the guest \
         at least {mib} MiB"
    )]
    InitrdTooLarge {
        /// Its length.
        len: u64,
        /// Room between the end of the kernel and the end of RAM.
        free: u64,
        /// The least memory that holds both.
        mib: u64,
    },
    /// No amount of memory helps.
    #[error(
        "an initrd of {len} bytes doesn't fit between the end of the kernel at {kernel_end:#x} and {limit:#x}, \
         the highest address at which this kernel takes it; use a smaller one"
    )]
    InitrdUnplaceable {
        /// Its length.
        len: u64,
        /// First address behind the kernel.
        kernel_end: u64,
        /// First address that the initrd must not reach.
        limit: u64,
    },
    /// The kernel frees its pages as whole ones.
    #[error("the initrd is to start at {start:#x}; use a multiple of 0x1000")]
    InitrdUnaligned {
        /// What was asked for.
        start: u64,
    },
    /// The kernel wouldn't find it.
    #[error(
        "the initrd at {:#x}..{:#x} ends beyond {limit:#x}, the highest address at which this kernel takes it; put it lower",
        initrd.start,
        initrd.end
    )]
    InitrdTooHigh {
        /// Where it was to be.
        initrd: Range<u64>,
        /// First address that the initrd must not reach.
        limit: u64,
    },
    /// Nothing would be read from there.
    #[error("the {} at {:#x}..{:#x} lies outside the guest's RAM; choose another address", .0.what, .0.range.start, .0.range.end)]
    Outside(Placement),
    /// Two things at one place.
    #[error(
        "the {} at {:#x}..{:#x} overlaps the {} at {:#x}..{:#x}; choose another address for one of them",
        .0.what, .0.range.start, .0.range.end,
        .1.what, .1.range.start, .1.range.end
    )]
    Overlap(Placement, Placement),
    /// The command line isn't what the kernel takes.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The zero page and the PVH memory map have a fixed size.
    #[error("a memory map of {count} entries; at most {} fit", zero_page::E820_MAX)]
    MemoryMap {
        /// Entries that the RAM makes.
        count: usize,
    },
}

fn names(protocols: &[Protocol]) -> String {
    protocols.iter().map(|p| protocol_name(*p)).collect::<Vec<_>>().join(" and ")
}
