//! The end of a process whose thread made a call that isn't in its filter.
//!
//! The handler runs in the middle of whatever the thread was doing, perhaps with the allocator's lock held, so it is limited to what
//! signal-safety(7) lists.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::fmt::Write;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::names::call_name;
use crate::role::{ROLE_LEN, role};

/// The exit code of a process that the filter has stopped: 128 + SIGSYS.
pub const VIOLATION_EXIT_CODE: u8 = 159;

/// What siginfo_t contains for a SIGSYS of a filter (include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct Violation {
    signal: i32,
    error: i32,
    code: i32,
    _padding: i32,
    call_address: *const c_void,
    call: u32,
    architecture: u32,
}

/// include/uapi/asm-generic/siginfo.h SYS_SECCOMP
const OF_A_FILTER: i32 = 1;
/// The files that glibc reads when it first gives back memory of an arena (malloc's check_may_shrink_heap), and when it decides how
/// many arenas there may be (get_nprocs), which any thread may be the first to do.
const READ_BY_MALLOC: [&CStr; 3] =
    [c"/proc/sys/vm/overcommit_memory", c"/sys/devices/system/cpu/online", c"/proc/stat"];

static RESTORE: OnceLock<fn()> = OnceLock::new();
static EARLIER: OnceLock<SigAction> = OnceLock::new();
/// The thread that is ending the process, and its call.
static ENDING: AtomicI32 = AtomicI32::new(0);
static CALL: AtomicU32 = AtomicU32::new(0);

/// From now on a call that isn't in its thread's filter ends the process with [`VIOLATION_EXIT_CODE`], after `restore`, which
/// restores the terminal, and one line on standard error. A SIGSYS that something else sent goes to the handler that was installed
/// before. Only the first call has an effect.
///
/// `restore` runs in a signal handler, on any thread and under its filter: it must not lock, allocate or panic.
///
/// # Errors
/// The handler can't be installed.
pub fn report_violations(restore: fn()) -> io::Result<()> {
    if RESTORE.set(restore).is_err() {
        return Ok(());
    }
    // Not on the alternate stack: it has room for one signal, and a thread that makes a call has a stack. The signal isn't blocked
    // meanwhile, so if `restore` makes a call that isn't allowed, there is still the message.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER;
    let ours = SigAction::new(SigHandler::SigAction(stopped), flags, SigSet::empty());
    // SAFETY: the handler makes system calls, uses atomics and values that are set once, and calls `restore`, whose caller promises
    // the same.
    let earlier = unsafe { sigaction(Signal::SIGSYS, &ours) }?;
    let _ = EARLIER.set(earlier);
    Ok(())
}

extern "C" fn stopped(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let violation = info.cast::<Violation>();
    // SAFETY: the kernel passed it to a handler with SA_SIGINFO, and siginfo_t is as large and as aligned.
    let Violation { code, call, .. } = unsafe { violation.read() };
    if code != OF_A_FILTER {
        return pass_on();
    }
    // SAFETY: the kernel passed it to a handler with SA_SIGINFO, which alone uses it until it returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    if call == libc::SYS_openat as u32 && is_read_by_malloc(registers[libc::REG_RSI as usize]) {
        // As in a root without the file. malloc then assumes that memory may be overcommitted, and counts the thread's processors.
        registers[libc::REG_RAX as usize] = -i64::from(libc::ENOENT);
        return;
    }
    let thread = nix::unistd::gettid().as_raw();
    match ENDING.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            CALL.store(call, Ordering::SeqCst);
            if let Some(restore) = RESTORE.get() {
                restore();
            }
        }
        // A call of `restore`.
        Err(ending) if ending == thread => {}
        Err(_) => loop {
            std::thread::yield_now();
        },
    }
    let arguments =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX].map(|register| registers[register as usize]);
    let line = Line::about(CALL.load(Ordering::SeqCst), arguments);
    // Not if its reader has stopped: the other threads would run on while this one waits.
    let stderr = rustix::stdio::stderr();
    if poll(&mut [PollFd::new(stderr, PollFlags::POLLOUT)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(stderr, line.text());
    }
    // SAFETY: it ends the process without running anything of it.
    unsafe { libc::_exit(VIOLATION_EXIT_CODE.into()) }
}

/// Raises the signal again for the handler that was there before.
fn pass_on() {
    if let Some(earlier) = EARLIER.get() {
        // SAFETY: it was this signal's handler before.
        let _ = unsafe { sigaction(Signal::SIGSYS, earlier) };
        let _ = raise(Signal::SIGSYS);
    }
}

/// Whether `path` is the address of one of [`READ_BY_MALLOC`]. It is only read as far as it is the same, and if it isn't an address of this
/// process, the process dies here instead.
fn is_read_by_malloc(path: i64) -> bool {
    let path = path as usize as *const u8;
    let is_at = |name: &CStr| {
        name.to_bytes_with_nul().iter().enumerate().all(|(index, expected)| {
            let byte = path.wrapping_add(index);
            // SAFETY: the thread was about to give it to the kernel as a string, and all earlier bytes aren't its end.
            let byte = unsafe { byte.read_volatile() };
            byte == *expected
        })
    };
    READ_BY_MALLOC.into_iter().any(is_at)
}

/// A message without allocation. What doesn't fit is cut off.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn about(call: u32, arguments: [i64; 3]) -> Self {
        let mut line = Self { bytes: [0; 512], len: 0 };
        let (role, len) = role_or_name();
        let [first, second, third] = arguments;
        let _ = line.write_str("error: the sandbox stopped the thread ");
        line.append(&role[..len]);
        let _ = line.write_str(": system call ");
        let _ = line.write_str(call_name(call).unwrap_or("without a name"));
        let _ = write!(line, " ({call}) with {first:#x}, {second:#x}, {third:#x} isn't in its filter; ");
        let _ = line.write_str(
            "this is a bug of the monitor or an attack by the guest: please report it with this line\n",
        );
        line
    }

    fn append(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text[..len]);
        self.len += len;
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

/// The calling thread's role, or its name if it has none: bytes and their number. May be called in a signal handler.
pub(crate) fn role_or_name() -> ([u8; ROLE_LEN], usize) {
    role().unwrap_or_else(|| {
        let mut name = [0_u8; ROLE_LEN];
        // SAFETY: PR_GET_NAME writes at most 16 bytes, which the array has (PR_GET_NAME(2const)).
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        (name, name.iter().position(|byte| *byte == 0).unwrap_or(ROLE_LEN))
    })
}
