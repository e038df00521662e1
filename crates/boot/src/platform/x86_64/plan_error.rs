//! Errors in planning a boot.

use std::ops::Range;

use vmm_arch::boot::Protocol;
use vmm_arch::layout;

use crate::cmdline::CmdlineError;
use crate::placement::Placement;
use crate::platform::x86_64::image::protocol_name;
use crate::platform::x86_64::zero_page;

/// Why a kernel can't be booted as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The kernel doesn't support the protocol.
    #[error("boot protocol {}: this kernel offers only {}", protocol_name(*asked), names(offered))]
    Protocol {
        /// The configured protocol.
        asked: Protocol,
        /// The supported protocols.
        offered: Vec<Protocol>,
    },
    /// The kernel would overwrite its boot parameters.
    #[error("the kernel starts at {start:#x}, below 1 MiB, where it is given its boot parameters")]
    KernelTooLow {
        /// Start of the kernel.
        start: u64,
    },
    /// The kernel reaches into the MMIO gap.
    #[error("the kernel ends at {end:#x}, beyond the start of the 32-bit MMIO gap at {:#x}", layout::MMIO_GAP.start)]
    KernelTooHigh {
        /// End of the kernel, exclusive.
        end: u64,
    },
    /// The kernel exceeds the RAM.
    #[error(
        "the kernel needs memory up to {end:#x}, but it ends at {ram_end:#x}; give the guest at least {mib} MiB"
    )]
    TooLittleMemory {
        /// End of the kernel, exclusive.
        end: u64,
        /// End of the RAM below the MMIO gap.
        ram_end: u64,
        /// Minimum memory for the kernel in MiB.
        mib: u64,
    },
    /// The initrd is empty.
    #[error("the initrd is empty")]
    InitrdEmpty,
    /// The initrd exceeds the RAM.
    #[error(
        "an initrd of {len} bytes doesn't fit into the {free} bytes that are free behind the kernel; give the guest \
         at least {mib} MiB"
    )]
    InitrdTooLarge {
        /// Length of the initrd in bytes.
        len: u64,
        /// Free bytes between the end of the kernel and the end of RAM.
        free: u64,
        /// Minimum memory for both in MiB.
        mib: u64,
    },
    /// The initrd doesn't fit, whatever the guest's memory.
    #[error(
        "an initrd of {len} bytes doesn't fit between the end of the kernel at {kernel_end:#x} and {limit:#x}, \
         the highest address at which this kernel takes it; use a smaller one"
    )]
    InitrdUnplaceable {
        /// Length of the initrd in bytes.
        len: u64,
        /// End of the kernel, exclusive.
        kernel_end: u64,
        /// Exclusive limit of the initrd's addresses.
        limit: u64,
    },
    /// The initrd isn't page-aligned. The kernel frees it in whole pages.
    #[error("the initrd is to start at {start:#x}; use a multiple of 0x1000")]
    InitrdUnaligned {
        /// The configured address.
        start: u64,
    },
    /// The initrd is out of the kernel's reach.
    #[error(
        "the initrd at {:#x}..{:#x} ends beyond {limit:#x}, the highest address at which this kernel takes it; put it lower",
        initrd.start,
        initrd.end
    )]
    InitrdTooHigh {
        /// Addresses of the initrd.
        initrd: Range<u64>,
        /// Exclusive limit of the initrd's addresses.
        limit: u64,
    },
    /// A range isn't in RAM.
    #[error("the {} at {:#x}..{:#x} lies outside the guest's RAM; choose another address", .0.what, .0.range.start, .0.range.end)]
    Outside(Placement),
    /// Two ranges overlap.
    #[error(
        "the {} at {:#x}..{:#x} overlaps the {} at {:#x}..{:#x}; choose another address for one of them",
        .0.what, .0.range.start, .0.range.end,
        .1.what, .1.range.start, .1.range.end
    )]
    Overlap(Placement, Placement),
    /// The command line is invalid for this kernel.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The memory map exceeds the fixed size in the zero page or for PVH.
    #[error("a memory map of {count} entries; at most {} fit", zero_page::E820_MAX)]
    MemoryMap {
        /// Number of entries.
        count: usize,
    },
}

fn names(protocols: &[Protocol]) -> String {
    protocols.iter().map(|p| protocol_name(*p)).collect::<Vec<_>>().join(" and ")
}
