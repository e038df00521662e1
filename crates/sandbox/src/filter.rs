//! System call filters, one per thread.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;

use crate::declare::Allow;
use crate::lists::BASE;
use crate::program::compile;
use crate::report::Wall;
use crate::role::set_role;

/// What happens to a call that isn't in the thread's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationAction {
    /// It isn't carried out, and the thread gets SIGSYS, whose handler ends the process
    /// ([`report_violations`](crate::report_violations)). Only clone and clone3 fail instead, with EPERM and ENOSYS.
    Trap,
    /// It is carried out, and the kernel logs it (auditd, otherwise dmesg): `type=1326`, `syscall=` and the number.
    Log,
}

static ACTION: OnceLock<ViolationAction> = OnceLock::new();

/// From now on [`confine_thread`] confines. A library's user who doesn't call it has no filters. Only the first call counts.
pub fn enable(action: ViolationAction) {
    let _ = ACTION.set(action);
    #[cfg(feature = "escape-hooks")]
    crate::escape::prepare();
}

/// Whether the kernel has filters, and this process may have them. After that [`confine_thread`] only fails for a lack of memory.
#[must_use]
pub fn filters() -> Wall {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: the kernel reads one word, and writes nothing.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0_u32, &raw const action) };
    if answer == 0 {
        return Wall::up(FILTERS, "a filter per thread");
    }
    let why = format!("the kernel takes no filter: {}", io::Error::last_os_error());
    Wall::missing(FILTERS, why, "use a kernel with CONFIG_SECCOMP_FILTER")
}

const FILTERS: &str = "system calls";

/// Whether [`enable`] was called. A panic hook that captures backtraces must ask it, and capture none: resolving one opens the
/// program's file, which is a violation, and the panic's message would be lost.
#[must_use]
pub fn is_enabled() -> bool {
    ACTION.get().is_some()
}

/// Allows the calling thread, and threads that it creates later, only what is in one of `lists` or in [`BASE`], for good.
///
/// `role` is what the thread is called in the message about a violation, in at most 31 bytes. List what is called most, such as
/// KVM_RUN, first. Call it once a thread, after what only its start needs: to add a filter to an inherited one, the inherited one
/// must contain [`SPAWN`](crate::SPAWN). No signal mask may contain SIGSYS, otherwise the kernel ends the process without a message.
///
/// Does nothing before [`enable`].
///
/// # Errors
/// The kernel has no filters, or the lists are too long.
pub fn confine_thread(role: &str, lists: &[&[Allow]]) -> io::Result<()> {
    let Some(action) = ACTION.get() else { return Ok(()) };
    let violation = match action {
        ViolationAction::Trap => libc::SECCOMP_RET_TRAP,
        ViolationAction::Log => libc::SECCOMP_RET_LOG,
    };
    let lists = [lists, &[BASE]].concat();
    let program = compile(&lists, violation, std::process::id())?;
    set_role(role);
    rustix::thread::set_no_new_privs(true)?;
    apply(&program)?;
    #[cfg(feature = "escape-hooks")]
    crate::escape::attempt(role);
    Ok(())
}

/// Adds `program` to the calling thread's filters.
pub(crate) fn apply(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which the slice has and which outlive the call, and writes nothing.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
