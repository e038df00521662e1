//! A pseudo-terminal between the program under test and the test.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// A pseudo-terminal. All its descriptors are close-on-exec, so that a program started concurrently by
/// another test doesn't keep it open.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: File,
    /// Its initial modes.
    pub(crate) first_modes: Termios,
}

impl Terminal {
    /// A new terminal in its default modes: line editing, echo, signals.
    pub(crate) fn open() -> Self {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master: PtyMaster = posix_openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("our own pseudo-terminal");
        let name = ptsname_r(&master).expect("the name of a pseudo-terminal");
        let slave = Self::attach(Path::new(&name)).expect("the slave of our own pseudo-terminal");
        let master = master.as_fd().try_clone_to_owned().expect("a descriptor");
        let first_modes = tcgetattr(&slave).expect("the modes of an open terminal");
        Self { master, slave, first_modes }
    }

    /// Opens the terminal called `name`, such as `/dev/pts/3`, without making it a controlling terminal.
    pub(crate) fn attach(name: &Path) -> io::Result<File> {
        File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name)
    }

    /// Sets the modes, as a shell does that gets the terminal back.
    pub(crate) fn set_modes(&self, modes: &Termios) {
        tcsetattr(&self.slave, SetArg::TCSANOW, modes).expect("our own pseudo-terminal");
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.slave).expect("the modes of an open terminal")
    }
}
