//! Room on the host's file system for the holes of a file that is memory: a guest's store to a hole for which there is none
//! ends the machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vmm_config::ByteSize;

use crate::shell;

/// Unit of `st_blocks` (stat(2)).
const BLOCK_LEN: u64 = 512;

/// The space of a file in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Allocated to it.
    allocated: u64,
    /// What its file system has left.
    left: u64,
}

impl Space {
    /// That of a regular file now.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let system = rustix::fs::fstatvfs(file)?;
        let allocated = file.metadata()?.blocks().saturating_mul(BLOCK_LEN);
        Ok(Self { allocated, left: system.f_bavail.saturating_mul(system.f_frsize) })
    }

    /// A warning if not all `len` bytes of the file can be allocated.
    pub(crate) fn caution(self, len: u64, path: &Path) -> Option<String> {
        let missing = len.saturating_sub(self.allocated);
        if missing <= self.left {
            return None;
        }
        let (missing, left) = (ByteSize::from_bytes(missing), ByteSize::from_bytes(self.left));
        Some(format!(
            "{missing} of {} aren't allocated, and its file system has {left} left: a store for which there is no room ends the \
             machine; make room and allocate all of it, fallocate -l {len} {}",
            path.display(),
            shell::path(path)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caution(allocated: u64, left: u64) -> Option<String> {
        Space { allocated, left }.caution(8 << 20, Path::new("m.img"))
    }

    #[test]
    fn file_without_room_for_its_holes_is_warned_of() {
        assert_eq!(
            caution(1 << 20, 4 << 20).as_deref(),
            Some(
                "7M of m.img aren't allocated, and its file system has 4M left: a store for which there is no room ends the machine; \
                 make room and allocate all of it, fallocate -l 8388608 m.img"
            )
        );
    }

    #[test]
    fn file_whose_holes_have_room_or_that_has_none_is_not_warned_of() {
        assert_eq!(caution(1 << 20, 7 << 20), None);
        // With its own tables.
        assert_eq!(caution((8 << 20) + 4096, 0), None);
    }
}
