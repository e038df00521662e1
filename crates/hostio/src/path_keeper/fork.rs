//! Forks the keeper.
#![allow(unsafe_code)]

use std::fs::{DirEntry, File, read_dir};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::time::Instant;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, close, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use rustix::event::PollFlags;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use super::client::{PATIENCE, wait};
use super::grant::Grant;
use super::message::{receive, send};
use super::server::serve;

/// The first message of a keeper that is ready. Of one that isn't, it is the reason.
const READY: &[u8] = b"ready";
/// Maximum length of a reason in bytes. The rest is cut off.
const REASON_MAX: usize = 512;
/// The first descriptor after the standard streams.
const AFTER_STREAMS: RawFd = 3;

/// A keeper that serves.
#[derive(Debug)]
pub struct KeeperProcess {
    /// For [`delegate_to`](super::delegate_to). The keeper ends when the last copy is closed.
    pub socket: OwnedFd,
    /// Its process ID.
    pub pid: i32,
}

/// Forks a keeper and waits until it serves. The child first closes all descriptors, then calls `confine`, which
/// must leave it the system calls and the access to files that [the module](super) lists. `confine` must not own
/// descriptors: they are closed by then.
///
/// # Errors
/// The process has more than one thread, /proc isn't mounted, the host is out of processes or descriptors, or
/// `confine` fails or panics. There is no child then.
pub fn fork_keeper(grant: &Grant, confine: impl FnOnce() -> io::Result<()>) -> io::Result<KeeperProcess> {
    let threads = read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("the process has {threads} threads and must have one")));
    }
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // SAFETY: this is the only thread, which was counted above and which alone could start another. So no
    // lock, of the allocator or anything else, is held in the child by a thread that it doesn't have, and the
    // child may call any function. It never returns to the caller.
    let child = match unsafe { fork() }? {
        ForkResult::Child => be_keeper(theirs, grant, confine),
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    match await_ready(&ours) {
        Ok(()) => Ok(KeeperProcess { socket: ours, pid: child.as_raw() }),
        Err(error) => {
            end(child);
            Err(error)
        }
    }
}

fn await_ready(socket: &OwnedFd) -> io::Result<()> {
    wait(socket, PollFlags::IN, Instant::now() + PATIENCE)
        .map_err(|errno| io::Error::other(format!("the path keeper isn't ready: {errno}")))?;
    let mut message = [0; REASON_MAX];
    let received = receive(socket, &mut message, RecvFlags::DONTWAIT)?;
    match &message[..received.len] {
        READY => Ok(()),
        [] => Err(io::Error::other("the path keeper ended before it was ready")),
        reason => Err(io::Error::other(String::from_utf8_lossy(reason))),
    }
}

/// Ends and reaps the child.
fn end(child: Pid) {
    // Both fail only if it is no child, or was reaped because SIGCHLD is ignored.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
}

/// The life of the child.
fn be_keeper(socket: OwnedFd, grant: &Grant, confine: impl FnOnce() -> io::Result<()>) -> ! {
    // The monitor's hook writes to descriptors that are closed by then.
    set_hook(Box::new(|_| ()));
    // A panic must not unwind into the caller's frames, whose destructors are the parent's to run.
    let _ = catch_unwind(AssertUnwindSafe(|| set_up_and_serve(socket, grant, confine)));
    // SAFETY: it ends the process without running what the parent has registered for its own exit, or
    // flushing what the parent has buffered.
    unsafe { libc::_exit(0) }
}

fn set_up_and_serve(
    socket: OwnedFd,
    grant: &Grant,
    confine: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // The standard streams may be closed, and the socket have the number of one.
    let kept = fcntl_dupfd_cloexec(&socket, AFTER_STREAMS)?;
    drop(socket);
    let confine = || {
        let panicked = |_| Err(io::Error::other("its confinement panicked"));
        catch_unwind(AssertUnwindSafe(confine)).unwrap_or_else(panicked)
    };
    if let Err(error) = detach(&kept).and_then(|()| confine()) {
        let reason = format!("the path keeper can't be set up: {error}");
        send(&kept, reason.as_bytes(), None)?;
        return Ok(());
    }
    send(&kept, READY, None)?;
    serve(kept, grant);
    Ok(())
}

/// Detaches the child from the monitor's signals, terminal and descriptors.
fn detach(socket: &OwnedFd) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    prctl::set_name(c"path-keeper")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    // It may be one of the three itself. Otherwise it is closed with the others.
    let _ = null.into_raw_fd();
    close_all_but(socket.as_raw_fd())
}

/// Closes all descriptors but `kept` and the standard streams. The parent's owners of their copies never drop
/// them here, because the child doesn't return.
fn close_all_but(kept: RawFd) -> io::Result<()> {
    let number = |entry: io::Result<DirEntry>| {
        Ok(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()))
    };
    let open = read_dir("/proc/self/fd")?.map(number).collect::<io::Result<Vec<_>>>()?;
    for fd in open.into_iter().flatten().filter(|fd| *fd >= AFTER_STREAMS && *fd != kept) {
        // The directory's own is closed by now. Other errors concern the parent's file.
        let _ = close(fd);
    }
    Ok(())
}
