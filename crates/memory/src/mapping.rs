//! Mappings that the host can back with huge pages, and what is done with their pages.
#![allow(unsafe_code)] // madvise has no safe wrapper in the tree.

use std::io;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, mmap::MmapRegionBuilder};

use crate::{PAGE_LEN, shared};

/// Size and alignment of a transparent huge page on x86_64, in bytes.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Attempts at an aligned mapping. One is enough unless other threads map at the same instant.
const ATTEMPTS: usize = 16;

/// Maps `len` zeroed bytes. They count against no overcommit limit before they are touched.
pub(crate) fn map(len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = aligned(len, || anonymous(len))?;
    leave_out_of_core_dumps(&region);
    if len >= HUGE_PAGE_LEN {
        prefer_huge_pages(&region);
    }
    Ok(region)
}

/// Maps `len` bytes of `file` for reading and writing, shared with everybody who has it, as memory of the guest.
pub(crate) fn map_shared(file: &FileOffset, len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = map_file(file, len, libc::PROT_READ | libc::PROT_WRITE)?;
    if len >= HUGE_PAGE_LEN {
        prefer_huge_pages(&region);
    }
    Ok(region)
}

/// Maps `len` bytes of `file`, shared with everybody who has it; `protection` is PROT_*.
///
/// # Errors
/// The file isn't open for that, or can't be mapped.
pub(crate) fn map_file(
    file: &FileOffset,
    len: usize,
    protection: i32,
) -> Result<MmapRegion, MmapRegionError> {
    let region = aligned(len, || {
        MmapRegionBuilder::new(len)
            .with_file_offset(file.clone())
            .with_mmap_prot(protection)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .build()
    })?;
    leave_out_of_core_dumps(&region);
    Ok(region)
}

/// A mapping of `len` bytes that `map` makes, on a huge page's boundary where it is at least one huge page long: a
/// guest-physical region starts on such a boundary too, so KVM can map the guest in steps of 2 MiB instead of 4 KiB.
fn aligned(
    len: usize,
    map: impl Fn() -> Result<MmapRegion, MmapRegionError>,
) -> Result<MmapRegion, MmapRegionError> {
    let mut region = map()?;
    if len < HUGE_PAGE_LEN {
        return Ok(region);
    }
    // Linux hands out addresses downwards, so a filler as long as the misalignment, put where a first
    // mapping landed, pushes the second one onto the boundary. Another thread that maps in between spoils
    // an attempt; a mapping that stays without the alignment is slower and nothing worse.
    for _ in 0..ATTEMPTS {
        let misalignment = region.as_ptr() as usize % HUGE_PAGE_LEN;
        if misalignment == 0 {
            break;
        }
        drop(region);
        let filler = anonymous(misalignment)?;
        region = map()?;
        drop(filler);
    }
    Ok(region)
}

fn anonymous(len: usize) -> Result<MmapRegion, MmapRegionError> {
    MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
}

/// Gives the pages of `region` at `offset..offset + len` back to the host: MADV_DONTNEED, or a hole in its file if it has one. They
/// read as zeros then, and take memory again when they are touched.
///
/// # Errors
/// They aren't whole pages inside `region`, or the host refuses.
pub(crate) fn discard(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let is_whole = offset.is_multiple_of(PAGE_LEN as usize) && len.is_multiple_of(PAGE_LEN as usize);
    let is_inside = offset.checked_add(len).is_some_and(|end| end <= region.size());
    if !is_whole || !is_inside {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if let Some(file) = region.file_offset() {
        return shared::discard(file, offset as u64, len as u64);
    }
    let start = region.as_ptr().wrapping_add(offset).cast();
    // SAFETY: start..start+len is whole pages of the mapping that `region` owns, as was checked just now, so no memory of
    // anybody else's is touched. What is in the pages changes as if the guest had written zeros, which it may do at any
    // time: no Rust reference to them exists, by the contract of GuestRam. A system call that is copying to or from them is
    // the kernel's affair: it finds the old page or a new one.
    if unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps a guest's memory out of the monitor's core dumps (MADV_DONTDUMP): they may be kept for long, and be read by others.
fn leave_out_of_core_dumps(region: &MmapRegion) {
    // SAFETY: the range is exactly one mapping, owned by `region` and alive. MADV_DONTDUMP changes neither its contents nor its
    // protection, only what the kernel writes when the process dies.
    let refused = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTDUMP) } != 0;
    // Every kernel since 3.4 does it for such a mapping.
    debug_assert!(!refused, "{}", io::Error::last_os_error());
}

/// Asks for huge pages behind `region`. A host without them says no, which costs speed only.
fn prefer_huge_pages(region: &MmapRegion) {
    // SAFETY: the range is exactly one mapping, owned by `region` and alive. MADV_HUGEPAGE changes neither
    // its contents nor its protection, only how the kernel backs it.
    let refused = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) } != 0;
    if refused {
        // EINVAL: a kernel without transparent huge pages. Nothing to do and nobody to tell.
        let _ = io::Error::last_os_error();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_a_huge_page_or_more_is_aligned_to_it() {
        let region = map(6 << 20).unwrap();
        assert_eq!(region.as_ptr() as usize % HUGE_PAGE_LEN, 0);
        assert_eq!(region.size(), 6 << 20);
    }

    /// Whether a line of smaps begins what is said of the mapping with this address: "7f12a000-7f12c000 rw-p ...".
    fn is_head_of(line: &str, address: usize) -> bool {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(start, end)| {
            number(start).is_some_and(|start| start <= address)
                && number(end).is_some_and(|end| address < end)
        })
    }

    /// The flags of a mapping (Linux, Documentation/filesystems/proc.rst, VmFlags). The kernel may have made it one with
    /// neighbours that have the same.
    fn flags(region: &MmapRegion) -> Vec<String> {
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let address = region.as_ptr() as usize;
        let mut lines = all.lines().skip_while(|line| !is_head_of(line, address));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("it is mapped");
        flags.split_whitespace().map(str::to_owned).collect()
    }

    /// "dd" is "do not include area into core dump".
    #[test]
    fn map_is_left_out_of_core_dumps() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let regions = [
            map(4 << 20).unwrap(),
            map(0x3000).unwrap(),
            map_file(&FileOffset::new(file, 0), 4 << 20, libc::PROT_READ).unwrap(),
            map_shared(&FileOffset::from_arc(shared::file(4 << 20).unwrap(), 0), 4 << 20).unwrap(),
        ];
        let left_out = regions.each_ref().map(|region| flags(region).contains(&"dd".to_owned()));
        assert_eq!(left_out, [true; 4]);
        assert!(!flags(&anonymous(0x5000).unwrap()).contains(&"dd".to_owned()));
    }

    #[test]
    fn map_of_a_page_is_a_page() {
        assert_eq!(map(4096).unwrap().size(), 4096);
    }

    #[test]
    fn discard_outside_of_the_mapping_or_of_half_a_page_is_refused() {
        let region = map(0x2000).unwrap();
        for (offset, len) in
            [(0, 0x3000), (0x3000, 0x1000), (usize::MAX & !0xfff, 0x2000), (0x800, 0x1000), (0, 0x800)]
        {
            let error = discard(&region, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset:#x} {len:#x}");
        }
        discard(&region, 0x1000, 0x1000).unwrap();
    }
}
