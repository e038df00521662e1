//! The memfd behind shared guest RAM, which other processes can map when they are passed its descriptor.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use vm_memory::FileOffset;

/// The name shown in /proc/PID/maps: `/memfd:guest-ram (deleted)`.
const NAME: &str = "guest-ram";

/// Creates a memfd of `len` zero bytes, which takes no memory until it is touched. It is sealed: nobody can
/// change its length, which would make an access to a mapping of it raise SIGBUS, or remove the seals.
pub(crate) fn file(len: u64) -> io::Result<Arc<File>> {
    let file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    ftruncate(&file, len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(Arc::new(file))
}

/// Returns the pages at `offset..offset + len` of a region of `file` to the host, for every process that maps
/// them. They read as zeros afterwards. MADV_DONTNEED isn't enough: it only unmaps the pages, and the file
/// keeps them.
pub(crate) fn discard(file: &FileOffset, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file.file(), flags, file.start() + offset, len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_keeps_its_length_whatever_is_tried() {
        let file = file(0x2000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0x2000);
        let refused = |len| file.set_len(len).unwrap_err().kind();
        assert_eq!(
            (refused(0x1000), refused(0x3000)),
            (io::ErrorKind::PermissionDenied, io::ErrorKind::PermissionDenied)
        );
        let unsealed = fcntl_add_seals(&file, SealFlags::WRITE).unwrap_err();
        assert_eq!(unsealed, rustix::io::Errno::PERM);
    }

    /// A program that the monitor starts must not inherit guest memory.
    #[test]
    fn file_is_closed_on_exec() {
        let flags = rustix::io::fcntl_getfd(file(0x1000).unwrap()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
