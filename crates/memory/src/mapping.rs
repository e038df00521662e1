//! Anonymous mappings that the host can back with huge pages.
#![allow(unsafe_code)] // madvise has no safe wrapper in the tree.

use std::io;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{MmapRegion, mmap::MmapRegionBuilder};

/// Size and alignment of a transparent huge page on x86_64, in bytes.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Attempts at an aligned mapping. One is enough unless other threads map at the same instant.
const ATTEMPTS: usize = 16;

/// Maps `len` zeroed bytes.
///
/// The mapping starts on a huge page's boundary where it is at least one huge page long: a guest-physical
/// region starts on such a boundary too, so KVM can map the guest in steps of 2 MiB instead of 4 KiB. It
/// counts against no overcommit limit before it is touched.
pub(crate) fn map(len: usize) -> Result<MmapRegion, MmapRegionError> {
    if len < HUGE_PAGE_LEN {
        return anonymous(len);
    }
    let mut region = anonymous(len)?;
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
        region = anonymous(len)?;
        drop(filler);
    }
    prefer_huge_pages(&region);
    Ok(region)
}

fn anonymous(len: usize) -> Result<MmapRegion, MmapRegionError> {
    MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
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

    #[test]
    fn map_of_a_page_is_a_page() {
        assert_eq!(map(4096).unwrap().size(), 4096);
    }
}
