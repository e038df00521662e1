//! Mappings that the host can back with huge pages.
#![allow(unsafe_code)] // madvise has no safe wrapper in the tree.

use std::io;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, mmap::MmapRegionBuilder};

use crate::{PAGE_LEN, shared};

/// Size and alignment of a transparent huge page on x86_64, in bytes.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Attempts to get an aligned mapping. One suffices unless other threads map memory at the same time.
const ATTEMPTS: usize = 16;

/// Maps `len` zeroed bytes. They don't count against the overcommit limit (MAP_NORESERVE).
pub(crate) fn map(len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = aligned(len, || anonymous(len))?;
    leave_out_of_core_dumps(&region);
    leave_out_of_children(&region);
    if len >= HUGE_PAGE_LEN {
        prefer_huge_pages(&region);
    }
    Ok(region)
}

/// Maps `len` bytes of `file`, MAP_SHARED, readable and writable, as guest RAM.
pub(crate) fn map_shared(file: &FileOffset, len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = map_file(file, len, libc::PROT_READ | libc::PROT_WRITE)?;
    if len >= HUGE_PAGE_LEN {
        prefer_huge_pages(&region);
    }
    Ok(region)
}

/// Maps `len` bytes of `file`, MAP_SHARED. `protection` is made of PROT_* bits.
///
/// # Errors
/// The file isn't open for that access, or mmap fails.
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
    leave_out_of_children(&region);
    Ok(region)
}

/// Calls `map` until its mapping of `len` bytes starts on a huge page boundary, if it is at least one huge
/// page long. Guest-physical regions start on such a boundary too, so KVM can map the guest in 2 MiB rather
/// than 4 KiB pages.
fn aligned(
    len: usize,
    map: impl Fn() -> Result<MmapRegion, MmapRegionError>,
) -> Result<MmapRegion, MmapRegionError> {
    let mut region = map()?;
    if len < HUGE_PAGE_LEN {
        return Ok(region);
    }
    // Linux allocates addresses top-down. A filler as long as the misalignment, placed where the first
    // mapping was, therefore pushes the next mapping onto the boundary. Another thread that maps memory in
    // between spoils the attempt. A mapping that stays misaligned is slower but works.
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

/// Returns the pages of `region` at `offset..offset + len` to the host, by MADV_DONTNEED or, for a file
/// mapping, by punching a hole. They read as zeros afterwards and are allocated again when touched.
///
/// # Errors
/// The range isn't made of whole pages inside `region`, or the host refuses.
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
    // SAFETY: start..start+len is whole pages of the mapping that `region` owns, as checked above, so no
    // other memory is affected. The contents change as if the guest had written zeros, which it may do at any
    // time: no Rust reference to them exists, by the contract of GuestRam. A system call that is copying to
    // or from these pages sees the old page or a new one; the kernel handles that.
    if unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Excludes guest memory from the monitor's core dumps (MADV_DONTDUMP), which may be kept and read by others.
fn leave_out_of_core_dumps(region: &MmapRegion) {
    // SAFETY: the range is exactly one live mapping, owned by `region`. MADV_DONTDUMP changes neither its
    // contents nor its protection, only what the kernel writes when the process dies.
    let refused = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTDUMP) } != 0;
    // Supported for such mappings since Linux 3.4.
    debug_assert!(!refused, "{}", io::Error::last_os_error());
}

/// Excludes guest memory from children that fork(2) makes (MADV_DONTFORK), such as a path keeper. They would keep
/// its pages and files, with their locks, after the monitor's end, and have each page copied that it writes.
fn leave_out_of_children(region: &MmapRegion) {
    // SAFETY: the range is exactly one live mapping, owned by `region`. MADV_DONTFORK changes nothing in this
    // process. Who calls fork, which is unsafe, has to know what the child lacks.
    let refused = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTFORK) } != 0;
    // Supported for all mappings since Linux 2.6.16.
    debug_assert!(!refused, "{}", io::Error::last_os_error());
}

/// Requests transparent huge pages for `region`. Failure costs only speed.
fn prefer_huge_pages(region: &MmapRegion) {
    // SAFETY: the range is exactly one live mapping, owned by `region`. MADV_HUGEPAGE changes neither its
    // contents nor its protection, only how the kernel backs it.
    let refused = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) } != 0;
    if refused {
        // EINVAL: a kernel without transparent huge pages.
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

    /// Whether a line of smaps is the header of the mapping that holds `address`: "7f12a000-7f12c000 rw-p
    /// ...".
    fn is_head_of(line: &str, address: usize) -> bool {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(start, end)| {
            number(start).is_some_and(|start| start <= address)
                && number(end).is_some_and(|end| address < end)
        })
    }

    /// The mapping's VmFlags (Linux, Documentation/filesystems/proc.rst). The kernel may have merged it with
    /// neighbours that have the same flags.
    fn flags(region: &MmapRegion) -> Vec<String> {
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let address = region.as_ptr() as usize;
        let mut lines = all.lines().skip_while(|line| !is_head_of(line, address));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("it is mapped");
        flags.split_whitespace().map(str::to_owned).collect()
    }

    /// "dd" means "do not include area into core dump", "dc" "do not copy area on fork".
    #[test]
    fn map_is_left_out_of_core_dumps_and_of_children() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let regions = [
            map(4 << 20).unwrap(),
            map(0x3000).unwrap(),
            map_file(&FileOffset::new(file, 0), 4 << 20, libc::PROT_READ).unwrap(),
            map_shared(&FileOffset::from_arc(shared::file(4 << 20).unwrap(), 0), 4 << 20).unwrap(),
        ];
        let left_out = |flag: &str| regions.each_ref().map(|region| flags(region).contains(&flag.to_owned()));
        assert_eq!([left_out("dd"), left_out("dc")], [[true; 4]; 2]);
        let others = flags(&anonymous(0x5000).unwrap());
        assert!(!others.contains(&"dd".to_owned()) && !others.contains(&"dc".to_owned()));
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
