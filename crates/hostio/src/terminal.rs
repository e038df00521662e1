//! Raw mode of the terminal, and restoring it.
//!
//! The modes belong to the terminal, not to the process. If they stay raw, the user's terminal neither echoes
//! input nor obeys Ctrl-C. They are therefore restored however the process ends, except by SIGKILL: by
//! [`RawMode`] when it is dropped, by a panic hook that calls [`restore`], and by [`crash`](crate::crash) on
//! a fatal signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal with its original modes. No lock: a signal handler reads it.
static SAVED: OnceLock<SavedTerminal> = OnceLock::new();
/// Whether the terminal should be raw.
static WANTED: AtomicBool = AtomicBool::new(false);
/// Whether the terminal is raw, as far as this process knows.
static RAW: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct SavedTerminal {
    terminal: OwnedFd,
    modes: Termios,
}

impl SavedTerminal {
    /// The modes of raw mode.
    fn raw_modes(&self) -> Termios {
        let mut raw = self.modes.clone();
        raw.make_raw();
        raw
    }

    /// Whether the terminal has the modes that [`make_raw`] set. Those of the line aren't compared: a driver may
    /// set only some of them.
    fn is_raw(&self) -> bool {
        let raw = self.raw_modes();
        tcgetattr(&self.terminal).is_ok_and(|modes| {
            (modes.input_modes, modes.output_modes, modes.local_modes)
                == (raw.input_modes, raw.output_modes, raw.local_modes)
        })
    }

    /// Sets the modes. SIGTTOU, which would stop a background process that does this, is blocked meanwhile.
    fn restore(&self) {
        let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
        // A closed terminal has no modes to restore. Waiting for output to drain would block on a stopped
        // terminal.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
        if let Ok(before) = before {
            let _ = before.thread_set_mask();
        }
    }
}

/// Raw mode, until dropped.
#[derive(Debug)]
#[must_use = "dropping it leaves raw mode"]
pub struct RawMode(());

impl RawMode {
    /// Makes `terminal` raw: every key, including Ctrl-C, goes to the guest as typed, and guest output is
    /// shown unchanged, since the guest's terminal driver already edits, echoes and ends lines. A process has
    /// one terminal: pass the same one in every call.
    ///
    /// # Errors
    /// It isn't a terminal, or it is closed.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        save(terminal)?;
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

/// Does what may fail of [`RawMode::enter`]: saves the modes of `terminal`, and checks that they can be changed by
/// setting those that it has. In the background, where a change would stop this process, they are only read.
///
/// # Errors
/// It isn't a terminal, or it is closed. The host is out of descriptors.
pub fn prepare(terminal: impl AsFd) -> io::Result<()> {
    let modes = save(&terminal)?;
    if !is_background(&terminal) {
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    }
    Ok(())
}

/// Saves the modes, unless they have been saved, and returns the current ones.
fn save(terminal: impl AsFd) -> io::Result<Termios> {
    let modes = tcgetattr(&terminal)?;
    if SAVED.get().is_none() {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let _ = SAVED.set(SavedTerminal { terminal, modes: modes.clone() });
    }
    Ok(modes)
}

/// Whether the terminal is currently raw.
pub fn is_raw() -> bool {
    RAW.load(Ordering::SeqCst)
}

/// Whether another job of the shell has `terminal`. Reading from it or changing its modes would then stop
/// this process.
pub fn is_background(terminal: impl AsFd) -> bool {
    // Only a controlling terminal has jobs.
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

/// Restores the terminal's modes if it is raw. May be called on any thread and in a signal handler.
pub fn restore() {
    WANTED.store(false, Ordering::SeqCst);
    suspend();
}

/// Call it before the process stops: restores the terminal's modes if it is raw, until [`continued`].
///
/// If another job has the terminal by now, because the shell has taken it back from a running process, it gets the
/// modes too, unless the shell or that job has set some of its own.
pub fn suspend() {
    if RAW.swap(false, Ordering::SeqCst)
        && let Some(saved) = SAVED.get()
        && (!is_background(&saved.terminal) || saved.is_raw())
    {
        saved.restore();
    }
}

/// Call it after SIGCONT: makes the terminal raw again, once this process is in the foreground.
pub fn continued() {
    RAW.store(false, Ordering::SeqCst);
    ensure_raw();
}

/// Makes the terminal raw if it should be and isn't. Errors are ignored: a terminal that is gone is noticed
/// by its reader.
pub fn ensure_raw() {
    if WANTED.load(Ordering::SeqCst) && !is_raw() {
        let _ = make_raw();
    }
}

fn make_raw() -> io::Result<()> {
    let Some(saved) = SAVED.get() else { return Ok(()) };
    if is_background(&saved.terminal) {
        return Ok(());
    }
    // Set before the change: a crash in between then restores the modes that are still set.
    RAW.store(true, Ordering::SeqCst);
    tcsetattr(&saved.terminal, OptionalActions::Now, &saved.raw_modes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use nix::fcntl::OFlag;
    use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
    use rustix::process::Pid;
    use rustix::termios::{LocalModes, tcsetpgrp};

    use super::*;

    fn open_pty() -> (PtyMaster, File) {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let terminal = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name);
        (master, terminal.unwrap())
    }

    /// Runs the test called `name` in a process that leads a session, with a terminal as its standard input. Returns
    /// whether this is that process.
    fn is_session_leader(name: &str) -> bool {
        const CHILD: &str = "VMM_HOSTIO_TESTS_CHILD";
        if env::var_os(CHILD).is_some() {
            return true;
        }
        let (_master, terminal) = open_pty();
        let name = format!("terminal::tests::{name}");
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]);
        let output = leader.env(CHILD, "1").stdin(terminal).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        false
    }

    /// Another job, to which the terminal is given.
    fn foreground_job() -> Child {
        let job = Command::new("sleep").arg("600").process_group(0).stdin(Stdio::null()).spawn().unwrap();
        tcsetpgrp(io::stdin(), Pid::from_child(&job)).unwrap();
        assert!(is_background(io::stdin()));
        job
    }

    fn local_modes() -> LocalModes {
        tcgetattr(io::stdin()).unwrap().local_modes
    }

    fn is_cooked(terminal: &File) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    #[test]
    fn terminal_taken_back_by_the_shell_is_restored_at_the_end() {
        if !is_session_leader("terminal_taken_back_by_the_shell_is_restored_at_the_end") {
            return;
        }
        let before = local_modes();
        let raw = RawMode::enter(io::stdin()).unwrap();
        let mut job = foreground_job();
        drop(raw);
        let after = local_modes();
        job.kill().and_then(|()| job.wait()).unwrap();
        assert_eq!(after, before);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTTOU));
    }

    #[test]
    fn terminal_with_another_jobs_modes_keeps_them() {
        if !is_session_leader("terminal_with_another_jobs_modes_keeps_them") {
            return;
        }
        let mut theirs = tcgetattr(io::stdin()).unwrap();
        theirs.local_modes.remove(LocalModes::ECHO);
        let raw = RawMode::enter(io::stdin()).unwrap();
        tcsetattr(io::stdin(), OptionalActions::Now, &theirs).unwrap();
        let mut job = foreground_job();
        drop(raw);
        let after = local_modes();
        job.kill().and_then(|()| job.wait()).unwrap();
        assert_eq!(after, theirs.local_modes);
    }

    /// One test for everything, because a process has one terminal.
    #[test]
    fn terminal_is_raw_until_the_end_and_again_after_a_stop() {
        let (master, terminal) = open_pty();
        let modes = tcgetattr(&terminal).unwrap();
        prepare(&terminal).unwrap();

        let raw = RawMode::enter(&terminal).unwrap();
        assert!(is_raw() && !is_cooked(&terminal));
        // As a shell does while a job is stopped.
        tcsetattr(&terminal, OptionalActions::Now, &modes).unwrap();
        continued();
        assert!(is_raw() && !is_cooked(&terminal));
        suspend();
        assert!(!is_raw() && is_cooked(&terminal));
        continued();
        assert!(is_raw() && !is_cooked(&terminal));
        drop(raw);
        assert!(!is_raw() && is_cooked(&terminal));
        continued();
        assert!(is_cooked(&terminal), "raw mode is no longer wanted");
        drop(master);
        prepare(&terminal).unwrap_err();
    }
}
