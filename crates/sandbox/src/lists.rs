//! What threads of any role need.

use libc::{
    CLONE_FILES, CLONE_FS, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID,
    CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT, CLONE_PTRACE, CLONE_SIGHAND, CLONE_THREAD, CLONE_UNTRACED,
    CLONE_VFORK, CLONE_VM,
};

use crate::declare::Allow;

/// What the Rust runtime and the C libraries need to run and end a thread that computes, allocates, waits for locks and prints: part
/// of every filter.
pub const BASE: &[Allow] = &[
    // Locks, channels, joins.
    Allow::call(libc::SYS_futex),
    // Messages, eventfds, files: the descriptors were opened before, so what they are is decided elsewhere.
    Allow::call(libc::SYS_read),
    Allow::call(libc::SYS_write),
    // Whether a message can be written without waiting.
    Allow::call(libc::SYS_poll),
    // std prints with it.
    Allow::call(libc::SYS_writev),
    Allow::call(libc::SYS_close),
    // Memory, but nothing executable.
    Allow::masked(libc::SYS_mmap, 2, libc::PROT_EXEC as u32, 0),
    Allow::masked(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32, 0),
    Allow::call(libc::SYS_munmap),
    Allow::call(libc::SYS_mremap),
    Allow::call(libc::SYS_brk),
    // Allocators give memory back with DONTNEED and FREE; glibc 2.42 guards stacks with GUARD_INSTALL and GUARD_REMOVE.
    Allow::when(
        libc::SYS_madvise,
        2,
        &[
            libc::MADV_DONTNEED as u32,
            libc::MADV_FREE as u32,
            libc::MADV_DONTDUMP as u32,
            libc::MADV_HUGEPAGE as u32,
            MADV_GUARD_INSTALL,
            MADV_GUARD_REMOVE,
        ],
    ),
    // malloc decides by it how many arenas there may be; std asks for the stack's size with it.
    Allow::call(libc::SYS_sched_getaffinity),
    // Spinning in channels of std.
    Allow::call(libc::SYS_sched_yield),
    // The vDSO calls them where the clock can't be read without the kernel.
    Allow::call(libc::SYS_clock_gettime),
    Allow::call(libc::SYS_gettimeofday),
    // Sleeping; nanosleep is what musl uses.
    Allow::call(libc::SYS_clock_nanosleep),
    Allow::call(libc::SYS_nanosleep),
    // Waiting that a signal (SIGSTOP, SIGCONT) has interrupted.
    Allow::call(libc::SYS_restart_syscall),
    // Keys of hash maps.
    Allow::call(libc::SYS_getrandom),
    // Panics and abort: the name of the thread, its number, and SIGABRT to this process only.
    Allow::call(libc::SYS_getpid),
    Allow::call(libc::SYS_gettid),
    Allow::own_process(libc::SYS_tgkill, 0),
    // PR_SET_VMA names mappings, if glibc is told to (glibc.mem.decorate_maps).
    Allow::when(libc::SYS_prctl, 0, &[libc::PR_GET_NAME as u32, libc::PR_SET_VMA as u32]),
    // Signal handlers: this crate's, and those of the monitor's crashes.
    Allow::call(libc::SYS_rt_sigreturn),
    Allow::call(libc::SYS_rt_sigaction),
    Allow::call(libc::SYS_rt_sigprocmask),
    Allow::call(libc::SYS_sigaltstack),
    // std checks in debug builds that a descriptor is open before it closes it.
    Allow::when(libc::SYS_fcntl, 1, &[libc::F_GETFD as u32]),
    // Any thread may have to restore the terminal's modes, because the filter stopped it. Who has the terminal is asked first.
    Allow::when(
        libc::SYS_ioctl,
        1,
        &[TCGETS, TCSETS, libc::TIOCGPGRP as u32, libc::TCGETS2 as u32, libc::TCSETS2 as u32],
    ),
    Allow::call(libc::SYS_getpgrp),
    Allow::call(libc::SYS_getpgid),
    // The end of a thread, and of the process.
    Allow::call(libc::SYS_exit),
    Allow::call(libc::SYS_exit_group),
];

/// What a thread needs, besides [`BASE`], to create threads. These have its filter, and may add their own, which can only take away
/// from it: what they do must be in both.
pub const SPAWN: &[Allow] = &[
    // A thread of this process, not another process and no new namespaces.
    Allow::masked(libc::SYS_clone, 0, CLONE_SEEN, CLONE_OF_A_THREAD),
    // The first that the C library does in a thread.
    Allow::call(libc::SYS_set_robust_list),
    Allow::call(libc::SYS_rseq),
    // Its name, and what a filter must have.
    Allow::when(libc::SYS_prctl, 0, &[libc::PR_SET_NAME as u32, libc::PR_SET_NO_NEW_PRIVS as u32]),
    Allow::all(libc::SYS_seccomp, &[(0, &[libc::SECCOMP_SET_MODE_FILTER]), (1, &[0])]),
];

const CLONE_OF_A_THREAD: u32 = (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD) as u32;
/// All flags of clone(2) that make something other than a thread. CLONE_NEWTIME isn't one of them: it exists only in clone3.
const CLONE_SEEN: u32 = CLONE_OF_A_THREAD
    | (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER) as u32
    | (CLONE_NEWPID | CLONE_NEWNET | CLONE_PARENT | CLONE_PTRACE | CLONE_UNTRACED | CLONE_VFORK) as u32;

/// include/uapi/asm-generic/ioctls.h; libc's constants have different types in its two C libraries.
const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
/// include/uapi/asm-generic/mman-common.h, Linux 6.13.
const MADV_GUARD_INSTALL: u32 = 102;
const MADV_GUARD_REMOVE: u32 = 103;
