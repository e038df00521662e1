//! A pseudo-terminal, and whether somebody has opened it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use vmm_sys_util::timerfd::TimerFd;

use crate::fd::HostFd;

/// How often a pty without a client is polled. Linux reports a client's input and its close, but not its open.
const POLL: Duration = Duration::from_millis(100);

/// The mode of a pty: it carries the guest's output.
const PRIVATE: u32 = 0o600;

/// A pseudo-terminal with any number of clients, which Linux doesn't distinguish.
///
/// While it has no client, its master reports EPOLLHUP without end, can still be read, and can be written until its buffer is full.
/// So its input is always open and watched by edges, and its output only while there is a client.
#[derive(Debug)]
pub(super) struct Pty {
    pub(super) master: HostFd,
    pub(super) name: String,
    /// Expires every [`POLL`].
    pub(super) timer: TimerFd,
}

impl Pty {
    pub(super) fn open() -> io::Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname_r(&master)?;
        // Linux creates it writable by the group tty, which could inject input.
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(PRIVATE))?;
        make_raw(&master)?;
        // POLLHUP, which means "no client", is only reported after the first close.
        drop(File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name)?);
        let mut timer = TimerFd::new().map_err(io::Error::from)?;
        timer.reset(POLL, Some(POLL)).map_err(io::Error::from)?;
        let master = HostFd::owned(master.as_fd().try_clone_to_owned()?)?;
        Ok(Self { master, name, timer })
    }

    /// Whether a client has it open.
    pub(super) fn has_client(&self) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::empty())];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        polled.is_ok() && fds[0].revents().is_some_and(|events| !events.contains(PollFlags::POLLHUP))
    }
}

/// Switches off the pty's line discipline: the guest's terminal driver already edits and echoes.
fn make_raw(master: &PtyMaster) -> io::Result<()> {
    let mut modes = tcgetattr(master)?;
    cfmakeraw(&mut modes);
    tcsetattr(master, SetArg::TCSANOW, &modes)?;
    Ok(())
}

#[cfg(test)]
mod tests;
