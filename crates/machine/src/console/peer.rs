//! The host's end of a console: a fixed file or stream, a pty, or a socket and its clients.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::termios::tcgetwinsize;
use vmm_virtio::{HostEnd, TerminalSize};

use super::link::Link;
use super::pty::Pty;
use super::socket::Socket;
use crate::fd::{Direction, HostFd};
use crate::output_file::{NewFile, open_output};

/// A console can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{field} {target}: {source}")]
pub struct OpenError {
    /// JSON path in the config: `serial`, or for example `devices[0].target`.
    pub field: String,
    /// The target, such as `file console.log`.
    pub target: String,
    /// The host's error.
    pub source: io::Error,
}

impl OpenError {
    pub(crate) fn new(field: &str, end: &HostEnd, source: io::Error) -> Self {
        let target = match end {
            HostEnd::File(path) => format!("file {}", path.display()),
            HostEnd::Socket(path) => format!("socket {}", path.display()),
            other => other.to_string(),
        };
        Self { field: field.to_owned(), target, source }
    }
}

/// The host's end of a console.
#[derive(Debug)]
pub(super) enum Peer {
    /// A file or stream that stays the same for the whole run.
    Fixed {
        /// Its name in messages.
        name: String,
        /// The monitor's standard output: the monitor ends when its reader closes it.
        is_stdout: bool,
        /// Set for a regular file until the guest starts.
        truncation: Option<PendingTruncation>,
    },
    Pty(Pty),
    /// A unix socket, with one client at a time.
    Socket(Socket),
}

/// A file that is truncated when the guest starts. If it was created and the guest never starts, it is removed.
#[derive(Debug)]
pub(super) struct PendingTruncation {
    file: File,
    made: Option<NewFile>,
}

impl Peer {
    /// Opens the target `end` of the config's `field`. A fixed peer's link is complete, a pty's has only input, a
    /// socket's is empty.
    pub(super) fn open(field: &str, end: &HostEnd) -> Result<(Self, Link), OpenError> {
        let failed = |source| OpenError::new(field, end, source);
        match end {
            HostEnd::Stdio => {
                let input = HostFd::standard(io::stdin().as_fd(), Direction::In).map_err(failed)?;
                let output = HostFd::standard(io::stdout().as_fd(), Direction::Out).map_err(failed)?;
                let peer = Self::Fixed { name: "stdout".into(), is_stdout: true, truncation: None };
                Ok((peer, Link { input: Some(input), output: Some(output) }))
            }
            HostEnd::None => write_only(Path::new("/dev/null")).map_err(failed),
            HostEnd::File(path) => write_only(path).map_err(failed),
            HostEnd::Pty => {
                let pty = Pty::open().map_err(failed)?;
                let input = Some(pty.master.try_clone().map_err(failed)?);
                Ok((Self::Pty(pty), Link { input, output: None }))
            }
            HostEnd::Socket(path) => {
                Ok((Self::Socket(Socket::listen(path).map_err(failed)?), Link::default()))
            }
        }
    }

    /// Whether its input comes from a terminal, and so contains the monitor's keys.
    pub(super) fn is_terminal(end: &HostEnd) -> bool {
        *end == HostEnd::Stdio && io::stdin().is_terminal()
    }

    /// The size of its terminal, if there is one and it is known.
    pub(super) fn size(&self) -> Option<TerminalSize> {
        let size = match self {
            Self::Fixed { is_stdout: true, .. } => tcgetwinsize(io::stdin()),
            Self::Pty(pty) => tcgetwinsize(&pty.master),
            Self::Fixed { .. } | Self::Socket(_) => return None,
        };
        let size = size.ok().map(|size| TerminalSize { columns: size.ws_col, rows: size.ws_row });
        size.filter(|size| *size != TerminalSize::default())
    }

    /// The file that it removes: a socket, or a new file if the guest never starts.
    pub(super) fn removes(&self) -> Option<PathBuf> {
        match self {
            Self::Fixed { truncation: Some(PendingTruncation { made: Some(made), .. }), .. } => {
                Some(made.path().to_owned())
            }
            Self::Socket(socket) => Some(socket.path().to_owned()),
            Self::Fixed { .. } | Self::Pty(_) => None,
        }
    }

    /// Truncates the file, when the guest starts. After a reset it does nothing. Returns whether the file had contents.
    pub(super) fn truncate(&mut self, field: &str) -> Result<bool, OpenError> {
        let Self::Fixed { name, truncation: Some(truncation), .. } = self else { return Ok(false) };
        let failed = |source| OpenError { field: field.to_owned(), target: format!("file {name}"), source };
        let had_contents = truncation.file.metadata().map_err(failed)?.len() > 0;
        truncation.file.set_len(0).map_err(failed)?;
        Ok(had_contents)
    }

    /// The start can't be refused any more: a new file is kept, and later calls of [`truncate`](Self::truncate) do nothing.
    pub(super) fn keep(&mut self) {
        if let Self::Fixed { truncation, .. } = self
            && let Some(PendingTruncation { made: Some(made), .. }) = truncation.take()
        {
            made.keep();
        }
    }

    /// The name of a pty, which the user can't know otherwise.
    pub(super) fn announcement(&self) -> Option<String> {
        match self {
            Self::Pty(pty) => Some(pty.name.clone()),
            Self::Fixed { .. } | Self::Socket(_) => None,
        }
    }

    /// Connects to a waiting client, if there is one. A pty's input is open already and not part of the link.
    ///
    /// # Errors
    /// The host is out of descriptors or memory: the client waits for the next call.
    pub(super) fn try_connect(&mut self) -> io::Result<Option<Link>> {
        match self {
            Self::Fixed { .. } => Ok(None),
            Self::Pty(pty) if !pty.has_client() => Ok(None),
            Self::Pty(pty) => Ok(Some(Link { input: None, output: Some(pty.master.try_clone()?) })),
            Self::Socket(socket) => socket.connect(),
        }
    }

    /// Readable when a client may have connected. May change with each call of [`try_connect`](Self::try_connect).
    pub(super) fn arrival_fd(&self) -> Option<RawFd> {
        match self {
            Self::Fixed { .. } => None,
            Self::Pty(pty) => Some(pty.timer.as_raw_fd()),
            Self::Socket(socket) => Some(socket.arrival_fd()),
        }
    }

    /// Clears an event on [`arrival_fd`](Self::arrival_fd).
    pub(super) fn acknowledge_arrival(&mut self) {
        if let Self::Pty(pty) = self {
            // The timer has just expired, so this doesn't block; an error would only cause another poll.
            let _ = pty.timer.wait();
        }
    }
}

fn write_only(path: &Path) -> io::Result<(Peer, Link)> {
    let (file, made) = open_output(path)?;
    let truncation = if file.metadata()?.is_file() {
        Some(PendingTruncation { file: file.try_clone()?, made })
    } else {
        None
    };
    let output = HostFd::owned(file.into())?;
    let peer = Peer::Fixed { name: path.display().to_string(), is_stdout: false, truncation };
    Ok((peer, Link { input: None, output: Some(output) }))
}

#[cfg(test)]
mod tests {
    use rustix::termios::{Winsize, tcsetwinsize};
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn socket(directory: &tempfile::TempDir) -> (PathBuf, HostEnd) {
        let path = directory.path().join("console.sock");
        (path.clone(), HostEnd::Socket(path))
    }

    fn mode(path: impl AsRef<Path>) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn socket_left_by_a_crash_is_taken_over_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (path, end) = socket(&directory);
        drop(UnixListener::bind(&path).unwrap());
        let (peer, _) = Peer::open("serial", &end).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(peer);
        assert!(!path.exists());
    }

    #[test]
    fn socket_whose_name_another_has_taken_leaves_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, end) = socket(&directory);
        let (peer, _) = Peer::open("serial", &end).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(peer);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn socket_in_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, end) = socket(&directory);
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(
            Peer::open("serial", &end).unwrap_err().to_string(),
            format!(
                "serial socket {}: is in use by another program: stop that one, or choose another path",
                path.display()
            )
        );
    }

    #[test]
    fn socket_path_of_a_file_is_refused_and_the_file_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, end) = socket(&directory);
        std::fs::write(&path, "precious").unwrap();
        assert!(Peer::open("serial", &end).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn file_is_emptied_when_the_guest_starts_for_the_first_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        std::fs::write(&path, "precious").unwrap();
        let (mut peer, _link) = Peer::open("serial", &HostEnd::File(path.clone())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert!(peer.truncate("serial").unwrap());
        peer.keep();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::write(&path, "printed").unwrap();
        assert!(!peer.truncate("serial").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"printed");
    }

    #[test]
    fn file_of_another_console_is_refused_by_field_and_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let _first = Peer::open("serial", &HostEnd::File(path.clone())).unwrap();
        let error = Peer::open("devices[0].target", &HostEnd::File(path.clone())).unwrap_err();
        let problem =
            "it is being written by another console, by --metrics or by another monitor; name another file";
        assert_eq!(error.to_string(), format!("devices[0].target file {}: {problem}", path.display()));
    }

    #[test]
    fn pty_has_the_size_that_its_client_gave_it() {
        let pty = Pty::open().unwrap();
        let mut options = File::options();
        let client = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(&pty.name).unwrap();
        let peer = Peer::Pty(pty);
        assert_eq!(peer.size(), None);
        tcsetwinsize(&client, Winsize { ws_row: 40, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        assert_eq!(peer.size(), Some(TerminalSize { columns: 132, rows: 40 }));
    }

    #[test]
    fn file_that_is_a_directory_is_an_error_that_names_it() {
        let error = Peer::open("serial", &HostEnd::File("/".into())).unwrap_err();
        assert_eq!(error.to_string(), "serial file /: Is a directory (os error 21)");
    }
}
