//! A last action before the process dies of a defect.
//!
//! The processor and abort(3) raise signals that can't wait for an event loop: their handler runs in the thread that failed, wherever
//! it was. So there is one handler for all of them, here, and the action may only do what signal-safety(7) lists.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use signal_hook::low_level::emulate_default_handler;

/// Signals by which the kernel or the C library end a process that has a defect.
pub const SIGNALS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
];

/// What is done before the process dies.
static ACTION: OnceLock<fn()> = OnceLock::new();
/// How Rust's runtime handles the two signals of a stack that overflows: it names the thread.
static RUNTIME: [OnceLock<SigAction>; 2] = [OnceLock::new(), OnceLock::new()];

/// Calls `action` in the handler of each of [`SIGNALS`]; then the process ends as it would have. A later call changes nothing.
///
/// `action` may only do what signal-safety(7) lists: system calls and atomics, no lock, no allocation, no panic.
///
/// # Errors
/// The host refuses a signal handler.
pub fn before_death(action: fn()) -> io::Result<()> {
    if ACTION.set(action).is_err() {
        return Ok(());
    }
    // On the alternate stack, which Rust gives to each of its threads: of a stack that overflowed nothing is left.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let ours = SigAction::new(SigHandler::SigAction(died), flags, SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler makes system calls and reads statics that are set once, by atomics; the action is bound to the
        // same by this function's contract.
        let earlier = unsafe { sigaction(signal, &ours) }?;
        if let Some(runtime) = runtime(signal as i32) {
            let _ = runtime.set(earlier);
        }
    }
    Ok(())
}

fn runtime(signal: i32) -> Option<&'static OnceLock<SigAction>> {
    match signal {
        libc::SIGSEGV => Some(&RUNTIME[0]),
        libc::SIGBUS => Some(&RUNTIME[1]),
        _ => None,
    }
}

extern "C" fn died(signal: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    if let Some(action) = ACTION.get() {
        action();
    }
    if is_fault(info)
        && let Some(runtime) = runtime(signal).and_then(OnceLock::get)
        && let Ok(signal) = Signal::try_from(signal)
        // SAFETY: it was the handler of this signal before.
        && unsafe { sigaction(signal, runtime) }.is_ok()
    {
        // The instruction fails once more, and the runtime says so.
        return;
    }
    if emulate_default_handler(signal).is_err() {
        std::process::abort();
    }
}

/// Whether an instruction of ours failed, rather than somebody sent the signal.
fn is_fault(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel gave it to a handler with SA_SIGINFO, which reads it while it runs.
    let code = unsafe { (*info).si_code };
    code > 0 && code != libc::SI_KERNEL
}
