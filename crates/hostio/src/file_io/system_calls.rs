//! The system calls of file I/O, for filters.

use vmm_sandbox::Allow;

/// What executing an [`IoRequest`](super::IoRequest) takes: the system calls of an engine's own threads.
pub const FILE_IO_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_preadv),
    Allow::call(libc::SYS_pwritev2),
    // musl, without flags.
    Allow::call(libc::SYS_pwritev),
    // Zeros, where fallocate can't write them.
    Allow::call(libc::SYS_pwrite64),
    Allow::call(libc::SYS_fdatasync),
    Allow::call(libc::SYS_fallocate),
];

/// What a thread with an [`Engine`](super::Engine) calls besides [`FILE_IO_CALLS`] and [`SPAWN`](vmm_sandbox::SPAWN). It submits to a
/// ring that exists already, so it can't make one without restrictions.
pub const ENGINE_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_io_uring_enter),
    // Closes the files of a ring that ends: IORING_UNREGISTER_FILES.
    Allow::when(libc::SYS_io_uring_register, 1, &[3]),
];
