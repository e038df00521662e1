//! The system calls of the machine's own threads, for their filters.

use vmm_sandbox::Allow;

/// A thread that writes one file.
pub(crate) const WRITER_CALLS: &[Allow] = &[
    // The counters replace a file's contents.
    Allow::call(libc::SYS_lseek),
    Allow::call(libc::SYS_ftruncate),
];

/// The event loop, and the jobs: opening a console's next client, stopping, closing.
pub(crate) const MAIN_CALLS: &[Allow] = &[
    // The event loop.
    Allow::call(libc::SYS_epoll_wait),
    Allow::call(libc::SYS_epoll_pwait),
    Allow::call(libc::SYS_epoll_ctl),
    Allow::call(libc::SYS_epoll_create1),
    Allow::call(libc::SYS_eventfd2),
    Allow::call(libc::SYS_timerfd_create),
    Allow::call(libc::SYS_timerfd_settime),
    // Consoles: clients of a socket, non-blocking descriptors, the terminal's size, what has been typed.
    Allow::call(libc::SYS_accept4),
    Allow::when(
        libc::SYS_fcntl,
        1,
        &[libc::F_GETFL as u32, libc::F_SETFL as u32, libc::F_DUPFD_CLOEXEC as u32],
    ),
    Allow::when(libc::SYS_ioctl, 1, &[libc::TIOCGWINSZ as u32, libc::FIONREAD as u32]),
    // KVM's statistics.
    Allow::call(libc::SYS_pread64),
    // Files of outputs, and what they are.
    Allow::call(libc::SYS_fstat),
    Allow::call(libc::SYS_newfstatat),
    Allow::call(libc::SYS_statx),
    // Whether others use a log file that is to be removed.
    Allow::when(libc::SYS_fcntl, 1, &[libc::F_OFD_GETLK as u32]),
];

/// Writing a snapshot, besides KVM's: what memory is there, and the files.
pub(crate) const SNAPSHOT_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_pread64),
    Allow::call(libc::SYS_pwrite64),
    Allow::call(libc::SYS_lseek),
    Allow::call(libc::SYS_ftruncate),
    Allow::call(libc::SYS_fsync),
    Allow::call(libc::SYS_fstat),
    Allow::call(libc::SYS_statx),
    Allow::call(libc::SYS_getrandom),
    // A disk's copy: FICLONE (include/uapi/linux/fs.h).
    Allow::when(libc::SYS_ioctl, 1, &[0x4004_9409]),
];

/// Building a machine anew after a reset, besides KVM's: guest memory, the kernel, the vCPUs' processors.
pub(crate) const BUILD_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_memfd_create),
    Allow::when(libc::SYS_madvise, 2, &[libc::MADV_DONTFORK as u32]),
    Allow::masked(libc::SYS_mmap, 2, libc::PROT_EXEC as u32, 0),
    Allow::call(libc::SYS_pread64),
    Allow::call(libc::SYS_preadv),
    Allow::call(libc::SYS_sysinfo),
    Allow::call(libc::SYS_sched_setaffinity),
    Allow::when(libc::SYS_fcntl, 1, &[libc::F_ADD_SEALS as u32]),
];
