//! Restores the user's terminal when the process dies of a fatal signal, and names the file if a page of one was
//! missing.
//!
//! The processor and abort(3) raise signals that can't wait for an event loop: the handler runs in the thread
//! that failed and is limited to what signal-safety(7) lists. One handler serves all of them, and only this
//! module decides what it does.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use signal_hook::low_level::emulate_default_handler;
use vmm_memory::GuestRam;

use crate::terminal;

/// Signals by which the kernel or the C library kill a faulty process.
pub const SIGNALS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
];

/// Called before the process dies.
static ACTION: OnceLock<fn()> = OnceLock::new();
/// The Rust runtime's handlers of the two signals that a stack overflow raises. They print the thread's name.
static RUNTIME: [OnceLock<SigAction>; 2] = [OnceLock::new(), OnceLock::new()];

/// Guest memory that is mapped from a file.
static MEMORY_FILE: OnceLock<MappedMemory> = OnceLock::new();
/// Whether it still is.
static IS_MAPPED: AtomicBool = AtomicBool::new(false);

/// What the handler has to know of mapped guest memory.
#[derive(Debug)]
struct MappedMemory {
    addresses: Vec<Range<usize>>,
    line: String,
}

/// Has the file named on standard error if the process dies of an access to guest memory that is mapped from it, because it was
/// shortened or its storage fails; until dropped.
///
/// It concerns threads of this process and [`restore_terminal`]'s handler. An access of the guest's makes KVM_RUN fail with EFAULT, one of
/// the kernel's for a system call makes that fail with EFAULT.
#[derive(Debug)]
#[must_use = "dropping it forgets the file"]
pub struct MemoryFile(());

impl MemoryFile {
    /// Names the file that `ram` is mapped from as `name`. Drop it before the RAM is unmapped. A process restores one machine: later calls
    /// have no effect, and return `None`.
    pub fn of(ram: &GuestRam, name: &str) -> Option<Self> {
        let addresses = ram.regions().map(|region| region.hva as usize..(region.hva + region.len) as usize);
        let line = format!(
            "error: memory file {name}: a page can't be read: the file was shortened, or its storage fails; it must stay as it is while \
             a machine uses it, or use --memory copy\n"
        );
        MEMORY_FILE.set(MappedMemory { addresses: addresses.collect(), line }).ok()?;
        IS_MAPPED.store(true, Ordering::SeqCst);
        Some(Self(()))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        IS_MAPPED.store(false, Ordering::SeqCst);
    }
}

/// Names the file if the page at `address` is missing from mapped guest memory. Called in the signal handler.
fn name_memory_file(address: usize) {
    let is_in = |memory: &&MappedMemory| memory.addresses.iter().any(|range| range.contains(&address));
    let mapped = MEMORY_FILE.get().filter(|_| IS_MAPPED.load(Ordering::SeqCst));
    let Some(memory) = mapped.filter(is_in) else { return };
    // Not if its reader has stopped: the other threads would run on while this one waits.
    let stderr = rustix::stdio::stderr();
    if poll(&mut [PollFd::new(stderr, PollFlags::POLLOUT)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(stderr, memory.line.as_bytes());
    }
}

/// Hides RUST_BACKTRACE from the standard library, which prints a backtrace also when an allocation fails. That reads files, which a
/// confined thread can't. Returns whether the variable asked for backtraces.
///
/// Call it before other threads start. If there are any, or /proc isn't there to tell, nothing changes.
pub fn hide_backtrace_variable() -> bool {
    let name = "RUST_BACKTRACE";
    let is_asked_for = std::env::var_os(name).is_some_and(|value| value != "0");
    if is_asked_for && std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        // SAFETY: there is no other thread that could be reading the environment.
        unsafe { std::env::remove_var(name) };
    }
    is_asked_for
}

/// Restores the terminal's modes when one of [`SIGNALS`] kills the process, which then ends as it would have
/// without this.
///
/// # Errors
/// A signal handler can't be installed.
pub fn restore_terminal() -> io::Result<()> {
    // SAFETY: it reads atomics and values that are set once, and makes system calls.
    unsafe { before_death(terminal::restore) }
}

/// Installs a handler for each signal that calls `action`. Later calls have no effect.
///
/// # Safety
/// `action` may do only what signal-safety(7) lists: no lock, no allocation, no panic.
unsafe fn before_death(action: fn()) -> io::Result<()> {
    if ACTION.set(action).is_err() {
        return Ok(());
    }
    // On the alternate stack, which Rust provides for each of its threads: after a stack overflow there is no
    // other.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let ours = SigAction::new(SigHandler::SigAction(died), flags, SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler makes system calls, reads values that are set once, and calls the action, for
        // which the caller vouches.
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
    if signal == libc::SIGBUS && is_fault(info) {
        // SAFETY: the kernel passed it to a handler with SA_SIGINFO, which reads it while it runs.
        let info = unsafe { *info };
        // SAFETY: a SIGBUS of a fault has an address.
        name_memory_file(unsafe { info.si_addr() } as usize);
    }
    if is_fault(info)
        && let Some(runtime) = runtime(signal).and_then(OnceLock::get)
        && let Ok(signal) = Signal::try_from(signal)
        // SAFETY: it was this signal's handler before.
        && unsafe { sigaction(signal, runtime) }.is_ok()
    {
        // The instruction faults again, and the runtime reports it.
        return;
    }
    if emulate_default_handler(signal).is_err() {
        std::process::abort();
    }
}

/// Whether an instruction faulted, as opposed to a process sending the signal.
fn is_fault(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel passed it to a handler with SA_SIGINFO, which reads it while it runs.
    let code = unsafe { (*info).si_code };
    code > 0 && code != libc::SI_KERNEL
}

/// Each death happens in a child process that runs this test program again.
#[cfg(test)]
mod tests {
    use std::env;
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output, Stdio};

    use nix::sys::signal::raise;
    use vmm_memory::vm_memory::{Bytes, GuestAddress};
    use vmm_memory::{Backing, FileRange, Loading};

    use super::*;

    /// Set in the child's environment.
    const CHILD: &str = "VMM_HOSTIO_TESTS_CHILD";

    /// Runs `death` in a child process of the test called `name`, with the last words installed; returns the
    /// child's output.
    fn end_of(name: &str, death: fn()) -> Output {
        if env::var_os(CHILD).is_some() {
            // SAFETY: the last words are one system call.
            unsafe { before_death(last_words) }.unwrap();
            death();
            unreachable!("the process outlived its death");
        }
        let name = format!("crash::tests::{name}");
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null()).output().unwrap()
    }

    fn last_words() {
        let _ = rustix::io::write(rustix::stdio::stderr(), b"last words\n");
    }

    fn said(end: &Output) -> String {
        String::from_utf8_lossy(&end.stderr).into_owned()
    }

    fn overflow(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        if black_box(false) { 0 } else { overflow(depth + 1) + frame[0] }
    }

    #[test]
    fn stack_that_overflows_has_its_last_words_and_its_thread_is_named() {
        let end = end_of("stack_that_overflows_has_its_last_words_and_its_thread_is_named", || {
            let deep = std::thread::Builder::new().name("deep".into()).spawn(|| overflow(0));
            let _ = deep.unwrap().join();
        });
        let said = said(&end);
        assert!(said.starts_with("last words\n"), "{said}");
        assert!(said.contains("thread 'deep'") && said.contains("has overflowed its stack"), "{said}");
        assert_eq!(end.status.signal(), Some(libc::SIGABRT));
    }

    #[test]
    fn fault_has_the_last_words_once_and_is_the_end() {
        let end = end_of("fault_has_the_last_words_once_and_is_the_end", || {
            // SAFETY: none, intentionally: nothing is mapped there, and the process dies.
            let _: u8 = unsafe { std::ptr::without_provenance::<u8>(16).read_volatile() };
        });
        assert_eq!(said(&end), "last words\n");
        assert_eq!(end.status.signal(), Some(libc::SIGSEGV));
    }

    #[test]
    fn signal_that_is_sent_has_the_last_words_once_and_is_the_end() {
        let end = end_of("signal_that_is_sent_has_the_last_words_once_and_is_the_end", || {
            let _ = raise(Signal::SIGSEGV);
        });
        assert_eq!(said(&end), "last words\n");
        assert_eq!(end.status.signal(), Some(libc::SIGSEGV));
    }

    /// RAM that is mapped from a file without pages any more.
    fn ram_of_a_shortened_file() -> GuestRam {
        let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
        file.set_len(0x2000).unwrap();
        let range = FileRange { gpa: 0, len: 0x2000, offset: 0 };
        let ram =
            GuestRam::from_file(file.clone(), &[range], Loading::CopyOnWrite, Backing::Private).unwrap();
        file.set_len(0).unwrap();
        ram
    }

    fn read_second_page(ram: &GuestRam) {
        let _: u8 = ram.memory().read_obj(GuestAddress(0x1000)).unwrap();
    }

    #[test]
    fn missing_page_of_a_memory_file_is_named() {
        let end = end_of("missing_page_of_a_memory_file_is_named", || {
            let ram = ram_of_a_shortened_file();
            let _file = MemoryFile::of(&ram, "vm.snap/memory");
            read_second_page(&ram);
        });
        assert_eq!(
            said(&end),
            "last words\nerror: memory file vm.snap/memory: a page can't be read: the file was shortened, or its storage fails; \
             it must stay as it is while a machine uses it, or use --memory copy\n"
        );
        assert_eq!(end.status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    fn missing_page_of_other_memory_names_no_file() {
        let end = end_of("missing_page_of_other_memory_names_no_file", || {
            let [named, other] = [(); 2].map(|()| ram_of_a_shortened_file());
            let _file = MemoryFile::of(&named, "vm.snap/memory");
            read_second_page(&other);
        });
        assert_eq!(said(&end), "last words\n");
        assert_eq!(end.status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    fn missing_page_of_a_memory_file_that_is_not_used_any_more_names_no_file() {
        let name = "missing_page_of_a_memory_file_that_is_not_used_any_more_names_no_file";
        let end = end_of(name, || {
            let ram = ram_of_a_shortened_file();
            drop(MemoryFile::of(&ram, "vm.snap/memory"));
            read_second_page(&ram);
        });
        assert_eq!(said(&end), "last words\n");
    }

    #[test]
    fn abort_has_the_last_words() {
        let end = end_of("abort_has_the_last_words", || std::process::abort());
        assert_eq!(said(&end), "last words\n");
        assert_eq!(end.status.signal(), Some(libc::SIGABRT));
    }

    #[test]
    fn second_action_changes_nothing() {
        let end = end_of("second_action_changes_nothing", || {
            // SAFETY: it does nothing.
            unsafe { before_death(|| ()) }.unwrap();
            std::process::abort();
        });
        assert_eq!(said(&end), "last words\n");
    }
}
