//! Mappings that the host can back with huge pages.
#![allow(unsafe_code)] // madvise and mremap have no safe wrappers in the tree.

use std::{io, mem};

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, mmap::MmapRegionBuilder};

use crate::{PAGE_LEN, shared};

/// Size and alignment of a transparent huge page on x86_64, in bytes.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Attempts to get an aligned mapping. One suffices unless other threads map memory at the same time.
const ATTEMPTS: usize = 16;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps `len` zeroed bytes. They don't count against the overcommit limit (MAP_NORESERVE).
pub(crate) fn map(len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = aligned(len, || anonymous(len))?;
    leave_out(&region);
    if len >= HUGE_PAGE_LEN {
        prefer_huge_pages(&region);
    }
    Ok(region)
}

/// Maps `len` bytes of `file`, MAP_SHARED, readable and writable, as guest RAM.
pub(crate) fn map_shared(file: &FileOffset, len: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = map_file(file, len, READ_WRITE)?;
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
    with_file(file, len, protection, libc::MAP_SHARED)
}

/// Maps `len` bytes of `file`, MAP_PRIVATE, readable and writable, as guest RAM: what is written stays in memory. The file need only
/// be open for reading.
///
/// Without MADV_HUGEPAGE: pages that are written are copied one by one all the same, and reading one would read 2 MiB of a file that isn't
/// in the page cache yet, which makes the first seconds of a restored guest slower.
pub(crate) fn map_copy_on_write(file: &FileOffset, len: usize) -> Result<MmapRegion, MmapRegionError> {
    with_file(file, len, READ_WRITE, libc::MAP_PRIVATE)
}

/// Whether `region` was made by [`map_copy_on_write`].
pub(crate) fn is_copy_on_write(region: &MmapRegion) -> bool {
    region.file_offset().is_some() && region.flags() & libc::MAP_PRIVATE != 0
}

fn with_file(
    file: &FileOffset,
    len: usize,
    protection: i32,
    sharing: i32,
) -> Result<MmapRegion, MmapRegionError> {
    let region = aligned(len, || {
        MmapRegionBuilder::new(len)
            .with_file_offset(file.clone())
            .with_mmap_prot(protection)
            .with_mmap_flags(sharing | libc::MAP_NORESERVE)
            .build()
    })?;
    leave_out(&region);
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
        .with_mmap_prot(READ_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
}

/// Returns the pages of `region` at `offset..offset + len` to the host, by MADV_DONTNEED; for shared memory by punching a hole in its
/// file; for a copy-on-write mapping by mapping anonymous memory over them, as MADV_DONTNEED would bring the file's contents back. They
/// read as zeros afterwards and are allocated again when touched.
///
/// # Errors
/// The range isn't made of whole pages inside `region`, or the host refuses, in which case their contents are kept.
pub(crate) fn discard(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    check(region, offset, len)?;
    match region.file_offset() {
        None => drop_pages(region, offset, len),
        Some(_) if is_copy_on_write(region) => replace(region, offset, len),
        Some(file) => shared::discard(file, offset as u64, len as u64),
    }
}

/// Does the same with pages of a copy-on-write mapping that have been discarded before and are therefore anonymous memory. Of other pages
/// the file's contents would come back.
///
/// # Errors
/// Those of [`discard`].
pub(crate) fn discard_again(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    check(region, offset, len)?;
    drop_pages(region, offset, len)
}

fn check(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let is_whole = offset.is_multiple_of(PAGE_LEN as usize) && len.is_multiple_of(PAGE_LEN as usize);
    let is_inside = offset.checked_add(len).is_some_and(|end| end <= region.size());
    if is_whole && is_inside { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Gives back whole pages inside `region`.
fn drop_pages(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let start = region.as_ptr().wrapping_add(offset).cast();
    // SAFETY: start..start+len is whole pages of the mapping that `region` owns, as its callers have checked, so no
    // other memory is affected. The contents change as if the guest had written zeros, which it may do at any
    // time: no Rust reference to them exists, by the contract of GuestRam. A system call that is copying to
    // or from these pages sees the old page or a new one; the kernel handles that.
    if unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts fresh anonymous memory in the place of whole pages inside `region`.
///
/// It is mapped elsewhere first, and then moved there by one call: mremap checks its limits before it unmaps what was there
/// (Linux mm/mremap.c), where mmap with MAP_FIXED may leave a gap in guest RAM (kernels before 6.12), into which memory of the monitor's
/// could be mapped. Nor is there a moment in which these pages would be in a core dump.
fn replace(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let fresh = anonymous(len).map_err(|error| match error {
        MmapRegionError::Mmap(error) => error,
        error => io::Error::other(error),
    })?;
    advise(&fresh, Advice::LeaveOutOfCoreDumps)?;
    advise(&fresh, Advice::LeaveOutOfChildren)?;
    // All of a region alike, so that neighbours become one mapping.
    if region.size() >= HUGE_PAGE_LEN {
        prefer_huge_pages(&fresh);
    }
    let target = region.as_ptr().wrapping_add(offset).cast::<libc::c_void>();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the source is exactly the mapping that `fresh` owns, to which nothing refers. The target is whole pages of the mapping
    // that `region` owns, as its caller has checked, and stays readable and writable; its contents change as if the guest had
    // written zeros, as in `drop_pages`. `region` unmaps what is at its addresses, whatever that is.
    let moved = unsafe { libc::mremap(fresh.as_ptr().cast(), len, len, flags, target) };
    if moved == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // It owns nothing any more: another thread may have mapped something at its old addresses.
    mem::forget(fresh);
    Ok(())
}

/// Excludes guest memory from the monitor's core dumps (MADV_DONTDUMP), which may be kept and read by others, and from children that
/// fork(2) makes (MADV_DONTFORK), such as a path keeper. These would keep its pages and files, with their locks, after the monitor's end,
/// and have each page copied that it writes.
fn leave_out(region: &MmapRegion) {
    // Supported for such mappings since Linux 3.4 and 2.6.16.
    let left_out =
        advise(region, Advice::LeaveOutOfCoreDumps).and_then(|()| advise(region, Advice::LeaveOutOfChildren));
    debug_assert!(left_out.is_ok(), "{left_out:?}");
}

/// Requests transparent huge pages for `region`. Failure costs only speed.
fn prefer_huge_pages(region: &MmapRegion) {
    // EINVAL: a kernel without transparent huge pages.
    let _ = advise(region, Advice::PreferHugePages);
}

/// Advice to the kernel that changes neither contents nor protection of a mapping in this process.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Advice {
    LeaveOutOfCoreDumps = libc::MADV_DONTDUMP,
    LeaveOutOfChildren = libc::MADV_DONTFORK,
    PreferHugePages = libc::MADV_HUGEPAGE,
}

/// Calls madvise for all of `region`.
fn advise(region: &MmapRegion, advice: Advice) -> io::Result<()> {
    // SAFETY: the range is exactly one live mapping, owned by `region`. No `Advice` changes its contents or its protection in this
    // process, only how the kernel backs it and what it leaves out elsewhere. Who calls fork, which is unsafe, has to know what the
    // child lacks.
    if unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice as i32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

    fn copy_on_write(len: usize) -> MmapRegion {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        map_copy_on_write(&FileOffset::new(file, 0), len).unwrap()
    }

    #[test]
    fn copy_on_write_map_of_a_huge_page_or_more_is_aligned_to_it() {
        assert_eq!(copy_on_write(6 << 20).as_ptr() as usize % HUGE_PAGE_LEN, 0);
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
            copy_on_write(4 << 20),
            copy_on_write(0x3000),
        ];
        // All of it is another mapping then.
        discard(&regions[5], 0, 0x3000).unwrap();
        let left_out = |flag: &str| regions.each_ref().map(|region| flags(region).contains(&flag.to_owned()));
        assert_eq!([left_out("dd"), left_out("dc")], [[true; 6]; 2]);
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
