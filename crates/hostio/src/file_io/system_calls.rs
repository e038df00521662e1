//! The system calls of file I/O, for filters.

use vmm_sandbox::Allow;

/// The system calls of a thread with an [`Engine`](super::Engine), and of the engine's own threads. It submits to a ring that exists already, so it
/// can't make one without restrictions.
pub const FILE_IO_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_io_uring_enter),
    // Closes the files of a ring that ends: IORING_UNREGISTER_FILES.
    Allow::when(libc::SYS_io_uring_register, 1, &[3]),
    Allow::call(libc::SYS_pread64),
    Allow::call(libc::SYS_preadv),
    Allow::call(libc::SYS_preadv2),
    Allow::call(libc::SYS_pwrite64),
    Allow::call(libc::SYS_pwritev),
    Allow::call(libc::SYS_pwritev2),
    Allow::call(libc::SYS_fsync),
    Allow::call(libc::SYS_fdatasync),
    Allow::call(libc::SYS_fallocate),
];
