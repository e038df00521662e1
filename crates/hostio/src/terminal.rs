//! The terminal's raw mode, and every way back from it.
//!
//! The modes belong to the terminal, not to the process: whoever leaves them raw leaves the user a terminal that neither shows
//! what is typed nor obeys Ctrl-C. So they are given back at every end but SIGKILL: by [`RawMode`] when it is dropped, by a
//! panic hook that calls [`restore`], and by [`crash`](crate::crash) where the process dies of a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal, as it was found the first time. Without a lock: a signal handler reads it.
static FOUND: OnceLock<Found> = OnceLock::new();
/// The terminal is to be raw.
static WANTED: AtomicBool = AtomicBool::new(false);
/// It is raw, as far as we know.
static RAW: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Found {
    terminal: OwnedFd,
    modes: Termios,
}

/// Raw mode on a terminal, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it leaves raw mode"]
pub struct RawMode(());

impl RawMode {
    /// Makes `terminal` raw: every key goes to the guest as it is typed, also Ctrl-C, and what the guest prints is shown as it
    /// is. A process has one terminal: it is the same in every call.
    ///
    /// # Errors
    /// It is no terminal, or was closed.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd();
        if FOUND.get().is_none() {
            let found = Found { terminal: terminal.try_clone_to_owned()?, modes: tcgetattr(terminal)? };
            let _ = FOUND.set(found);
        }
        WANTED.store(true, Ordering::SeqCst);
        make_raw()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is raw now.
pub fn is_raw() -> bool {
    RAW.load(Ordering::SeqCst)
}

/// Whether `terminal` is in use by another job of its shell: reading from it, or changing its modes, would stop us.
pub fn is_background(terminal: impl AsFd) -> bool {
    // Of a terminal that doesn't control us there are no jobs.
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

/// Gives the terminal its modes back, if it is raw. It may be called on any thread, and by a signal handler.
pub fn restore() {
    WANTED.store(false, Ordering::SeqCst);
    if RAW.swap(false, Ordering::SeqCst)
        && let Some(found) = FOUND.get()
        && !is_background(&found.terminal)
    {
        // A terminal that was closed needs no modes. Draining it would wait for ever on a stopped one.
        let _ = tcsetattr(&found.terminal, OptionalActions::Now, &found.modes);
    }
}

/// The process was stopped, and its shell took the terminal: makes it raw again, as soon as it is ours again.
pub fn continued() {
    RAW.store(false, Ordering::SeqCst);
    ensure_raw();
}

/// Makes the terminal raw if it is to be and isn't. A terminal that has gone is found out by who reads it.
pub fn ensure_raw() {
    if WANTED.load(Ordering::SeqCst) && !is_raw() {
        let _ = make_raw();
    }
}

fn make_raw() -> io::Result<()> {
    let Some(found) = FOUND.get() else { return Ok(()) };
    if is_background(&found.terminal) {
        return Ok(());
    }
    let mut raw = found.modes.clone();
    raw.make_raw();
    // Before the change: a crash in between restores what is there already.
    RAW.store(true, Ordering::SeqCst);
    tcsetattr(&found.terminal, OptionalActions::Now, &raw)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    fn is_cooked(terminal: &File) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// One test for all: a process has one terminal.
    #[test]
    fn terminal_is_raw_until_the_end_and_again_after_a_stop() {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let terminal = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name);
        let terminal = terminal.unwrap();
        let modes = tcgetattr(&terminal).unwrap();

        let raw = RawMode::enter(&terminal).unwrap();
        assert!(is_raw() && !is_cooked(&terminal));
        // As a shell does while we are stopped.
        tcsetattr(&terminal, OptionalActions::Now, &modes).unwrap();
        continued();
        assert!(is_raw() && !is_cooked(&terminal));
        drop(raw);
        assert!(!is_raw() && is_cooked(&terminal));
        continued();
        assert!(is_cooked(&terminal), "nobody wants it raw any more");
    }
}
