//! Plans the boot of a kernel.

use std::fmt;
use std::ops::Range;

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vmm_arch::boot::{self, EntryPoint, Protocol};
use vmm_arch::e820::{self, E820Entry};
use vmm_arch::layout;
use vmm_memory::PAGE_LEN;

use crate::cmdline;
use crate::placement::Placement;
use crate::platform::x86_64::image::{KernelImage, protocol_name};
use crate::platform::x86_64::memory_map::write_memory;
use crate::platform::x86_64::plan_error::PlanError;
use crate::platform::x86_64::zero_page;

/// What to boot, how, and on which RAM. Start from [`BootSpec::new`]:
/// `BootSpec { cmdline: "console=ttyS0", ..BootSpec::new(&image, &ram) }`.
#[derive(Clone, Copy, Debug)]
pub struct BootSpec<'a> {
    /// The inspected kernel.
    pub image: &'a KernelImage,
    /// The boot protocol. Default: the kernel's.
    pub protocol: Option<Protocol>,
    /// Length of the initrd in bytes, as of [`InitrdFile::len`](crate::InitrdFile::len). Default: there is none.
    pub initrd_len: Option<u64>,
    /// The kernel's command line. Default: empty.
    pub cmdline: &'a str,
    /// The guest's RAM, as returned by [`layout::ram_ranges`].
    pub ram: &'a [Range<u64>],
    /// Further addresses; [`BootLayout::default`] suits most users.
    pub layout: BootLayout<'a>,
}

impl<'a> BootSpec<'a> {
    /// A boot by the kernel's own protocol, without an initrd and with an empty command line.
    pub fn new(image: &'a KernelImage, ram: &'a [Range<u64>]) -> Self {
        Self { image, protocol: None, initrd_len: None, cmdline: "", ram, layout: BootLayout::default() }
    }
}

/// Custom addresses and memory map. The default is the addresses in [`layout`], the highest possible address
/// for the initrd, and [`e820::map`].
///
/// Ranges must be in RAM, and must overlap neither the tables at [`layout::GDT`] and [`layout::PML4`], nor
/// the kernel, nor each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootLayout<'a> {
    /// Guest-physical address of the zero page; unused for PVH.
    pub zero_page: u64,
    /// Guest-physical address of the command line.
    pub cmdline: u64,
    /// Guest-physical address of the initrd, page-aligned. Default: as high as the kernel supports.
    pub initrd: Option<u64>,
    /// The memory map, passed to the kernel unchanged. Default: that of a PC with this RAM.
    pub e820: Option<&'a [E820Entry]>,
}

impl Default for BootLayout<'_> {
    fn default() -> Self {
        Self { zero_page: layout::ZERO_PAGE, cmdline: layout::CMDLINE, initrd: None, e820: None }
    }
}

/// All addresses, and the initial state of the guest. Created by [`BootPlan::new`], printed by `--check`,
/// executed by [`BootPlan::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    image: KernelImage,
    entry: EntryPoint,
    kernel: Range<u64>,
    initrd: Option<Range<u64>>,
    cmdline: String,
    cmdline_gpa: u64,
    e820: Vec<E820Entry>,
}

impl BootPlan {
    /// Plans the boot described by `spec`.
    ///
    /// The kernel is placed by its headers. The initrd is placed as high as the kernel supports, below the
    /// MMIO gap: far from the kernel, which may grow while it unpacks, and out of low memory, which the
    /// kernel prefers for DMA. Everything else has the addresses of [`layout`]. [`BootSpec::layout`]
    /// overrides them.
    ///
    /// # Errors
    /// The kernel doesn't support the protocol; the kernel, the initrd, the command line or the memory map
    /// doesn't fit; or two ranges overlap.
    pub fn new(spec: &BootSpec<'_>) -> Result<Self, PlanError> {
        let entry = entry(spec)?;
        let ram_end = spec.ram.first().filter(|low| low.start == 0).map_or(0, |low| low.end);
        let kernel = spec.image.footprint();
        check_kernel(&kernel, ram_end)?;
        let limit = spec.image.initrd_limit();
        let place = |len| match spec.layout.initrd {
            Some(start) => initrd_at(start, len, limit),
            None => place_initrd(len, kernel.end, limit, ram_end),
        };
        let initrd = spec.initrd_len.map(place).transpose()?;
        let cmdline = cmdline::check(spec.cmdline, spec.image.cmdline_max_len())?.to_owned();
        let e820 = spec.layout.e820.map_or_else(|| e820::map(spec.ram), <[_]>::to_vec);
        if e820.len() > zero_page::E820_MAX {
            return Err(PlanError::MemoryMap { count: e820.len() });
        }
        let cmdline_gpa = spec.layout.cmdline;
        let plan = Self { image: spec.image.clone(), entry, kernel, initrd, cmdline, cmdline_gpa, e820 };
        check_placements(plan.placements(), spec.ram)?;
        Ok(plan)
    }

    /// The kernel.
    pub fn image(&self) -> &KernelImage {
        &self.image
    }

    /// Protocol and address of the entry.
    pub fn entry(&self) -> EntryPoint {
        self.entry
    }

    /// All memory that the kernel occupies until it manages memory itself: an ELF's segments with their BSS;
    /// a bzImage from its load address to the end of the memory that it unpacks into.
    pub fn kernel(&self) -> Range<u64> {
        self.kernel.clone()
    }

    /// Addresses of the initrd, which starts on a page boundary.
    pub fn initrd(&self) -> Option<Range<u64>> {
        self.initrd.clone()
    }

    /// The command line, without its NUL and without surrounding white space.
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// Guest-physical address of the command line.
    pub(crate) fn cmdline_gpa(&self) -> u64 {
        self.cmdline_gpa
    }

    /// The memory map passed to the kernel.
    pub fn e820(&self) -> &[E820Entry] {
        &self.e820
    }

    /// Everything that [`BootPlan::load`] may write, in ascending order of address.
    pub fn placements(&self) -> Vec<Placement> {
        // Configured addresses may have any value; one whose end would overflow is outside RAM anyway.
        let place = |what, start: u64, len: u64| Placement { what, range: start..start.saturating_add(len) };
        let mut all = vec![
            place("descriptor tables", layout::GDT, size_of_val(&self.entry.protocol.gdt()) as u64),
            place("interrupt table", layout::IDT, size_of::<u64>() as u64),
            place("command line", self.cmdline_gpa, self.cmdline.len() as u64 + 1),
            Placement { what: "kernel", range: self.kernel() },
        ];
        all.extend(self.initrd().map(|range| Placement { what: "initrd", range }));
        if self.entry.protocol.is_long_mode() {
            // One page each, contiguous.
            let pages = boot::page_tables().len() as u64;
            all.push(place("page tables", layout::PML4, pages * PAGE_LEN));
        }
        if self.entry.protocol == Protocol::Pvh {
            let map_len = self.e820.len() * size_of::<hvm_memmap_table_entry>();
            all.push(place("start info", self.entry.params, size_of::<hvm_start_info>() as u64));
            all.push(place("memory map", layout::PVH_MEMORY_MAP, map_len as u64));
            let module = place("module list", layout::PVH_MODULES, size_of::<hvm_modlist_entry>() as u64);
            all.extend(self.initrd.as_ref().map(|_| module));
        } else {
            all.push(place("zero page", self.entry.params, PAGE_LEN));
        }
        all.sort_by_key(|placement| placement.range.start);
        all
    }
}

impl fmt::Display for BootPlan {
    /// Multi-line output for `--check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel: {}", self.image)?;
        writeln!(f, "entry: {} at {:#x}", protocol_name(self.entry.protocol), self.entry.rip)?;
        writeln!(f, "command line: {:?}", self.cmdline)?;
        write_memory(f, &self.e820, &self.placements())
    }
}

fn entry(spec: &BootSpec<'_>) -> Result<EntryPoint, PlanError> {
    let image = spec.image;
    let protocol = spec.protocol.unwrap_or_else(|| image.default_protocol());
    let offered = || PlanError::Protocol { asked: protocol, offered: image.protocols() };
    let rip = image.entry(protocol).ok_or_else(offered)?;
    let params = match protocol {
        Protocol::Linux64 | Protocol::Linux32 => spec.layout.zero_page,
        Protocol::Pvh => layout::PVH_START_INFO,
    };
    Ok(EntryPoint { protocol, rip, params })
}

/// Checks that `placements`, which are sorted, are in RAM and don't overlap.
fn check_placements(placements: Vec<Placement>, ram: &[Range<u64>]) -> Result<(), PlanError> {
    let in_ram = |range: &Range<u64>| ram.iter().any(|ram| ram.start <= range.start && range.end <= ram.end);
    if let Some(outside) = placements.iter().find(|placement| !in_ram(&placement.range)) {
        return Err(PlanError::Outside(outside.clone()));
    }
    match placements.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some([first, second]) => Err(PlanError::Overlap(first.clone(), second.clone())),
        _ => Ok(()),
    }
}

/// Checks an initrd of `len` bytes at `start`. RAM and overlaps are checked later, with everything else.
fn initrd_at(start: u64, len: u64, limit: u64) -> Result<Range<u64>, PlanError> {
    if len == 0 {
        return Err(PlanError::InitrdEmpty);
    }
    if !start.is_multiple_of(PAGE_LEN) {
        return Err(PlanError::InitrdUnaligned { start });
    }
    let initrd = start..start.saturating_add(len);
    // A 32-bit entry can't reach RAM above the gap, and an ELF has no field that would allow it.
    let limit = limit.min(layout::MMIO_GAP.start);
    if initrd.end > limit {
        return Err(PlanError::InitrdTooHigh { initrd, limit });
    }
    Ok(initrd)
}

/// Checks that the kernel is in the RAM from 1 MiB to `ram_end`, the end of the RAM that starts at 0.
fn check_kernel(kernel: &Range<u64>, ram_end: u64) -> Result<(), PlanError> {
    let &Range { start, end } = kernel;
    if start < layout::HIGH_MEMORY {
        return Err(PlanError::KernelTooLow { start });
    }
    if end > layout::MMIO_GAP.start {
        return Err(PlanError::KernelTooHigh { end });
    }
    if end > ram_end {
        return Err(PlanError::TooLittleMemory { end, ram_end, mib: mib(end) });
    }
    Ok(())
}

/// Places an initrd of `len` bytes as high as possible between the end of the kernel and `limit`, in RAM that
/// ends at `ram_end`. It is page-aligned and shares no page with the kernel.
fn place_initrd(len: u64, kernel_end: u64, limit: u64, ram_end: u64) -> Result<Range<u64>, PlanError> {
    if len == 0 {
        return Err(PlanError::InitrdEmpty);
    }
    // No overflow: the kernel ends below the MMIO gap.
    let lowest = kernel_end.next_multiple_of(PAGE_LEN);
    let fits_below = |top: u64| {
        let start = top.checked_sub(len)? & !(PAGE_LEN - 1);
        (start >= lowest).then_some(start..start + len)
    };
    // The highest limit, if there is RAM up to the gap; `ram_end` isn't above the gap.
    let most = limit.min(layout::MMIO_GAP.start);
    if let Some(range) = fits_below(most.min(ram_end)) {
        return Ok(range);
    }
    if fits_below(most).is_none() {
        return Err(PlanError::InitrdUnplaceable { len, kernel_end, limit: most });
    }
    let free = most.min(ram_end).saturating_sub(lowest);
    Err(PlanError::InitrdTooLarge { len, free, mib: mib(lowest + len) })
}

/// The smallest number of MiB that reaches up to `end`.
fn mib(end: u64) -> u64 {
    end.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests;
