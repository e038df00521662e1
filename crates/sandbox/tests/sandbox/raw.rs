//! System calls that no safe function makes.
#![allow(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// The exit code of a test that has failed.
const FAILED: i32 = 101;

/// Runs `body` in a forked process, whose only thread this is; returns its end.
pub(crate) fn in_fork(body: impl FnOnce()) -> WaitStatus {
    // SAFETY: the other thread of the harness waits for this test and holds no lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            let code = if catch_unwind(AssertUnwindSafe(body)).is_ok() { 0 } else { FAILED };
            // SAFETY: it runs nothing of the harness.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Installs a handler for `signal` that calls `action`, which only stores something. A process has one.
pub(crate) fn handle(signal: Signal, action: fn()) {
    static ACTION: OnceLock<fn()> = OnceLock::new();
    extern "C" fn handler(_: i32) {
        if let Some(action) = ACTION.get() {
            action();
        }
    }
    ACTION.set(action).unwrap();
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler reads a value that is set and stores another.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// Makes a system call. The tests only pass numbers, and null for pointers.
pub(crate) fn call(number: libc::c_long, arguments: [u64; 4]) -> io::Result<u64> {
    let [first, second, third, fourth] = arguments;
    // SAFETY: no argument is the address of something that the kernel could write to.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, -1, 0) };
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// From now on `number` fails with `errno` on this thread, as in a container with a seccomp profile.
pub(crate) fn refuse(number: libc::c_long, errno: i32) {
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let program = [
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number as u32),
        instruction(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    rustix::thread::set_no_new_privs(true).unwrap();
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which are there during the call.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, &raw const program) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
