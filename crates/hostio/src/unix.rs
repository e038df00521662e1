//! Named unix sockets: the monitor's own, and connections to others.
//!
//! Ownership of a name is decided without a lock. A socket is first bound under a temporary name, listens,
//! and then gets its final name by link(2), which succeeds for only one of several processes. At any moment
//! the name therefore belongs to a socket that listens or to one whose listener is dead, and connect(2) tells
//! them apart. A dead socket is replaced by rename(2), so that the name is never free in between. Only the
//! process that has won a second name, in the same way, may do so, and it first checks again that the socket
//! is dead: another monitor may have been faster.
//!
//! To the kernel and to clients, the temporary name remains the socket's address; [`is_monitors`] recognizes
//! a monitor's socket by it.

use std::fs::{Permissions, hard_link, remove_file, rename, set_permissions, symlink_metadata};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, access, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use crate::path_keeper::{self, Contents, connect_directly, remove_if_same};

/// Maximum length of a socket's name in bytes: sun_path without its NUL (unix(7)).
pub const UNIX_NAME_MAX: usize = 107;
/// Maximum length of the path of a [`NamedSocket`] in bytes, which leaves room for the temporary name's
/// suffix.
pub const NAMED_SOCKET_MAX: usize = UNIX_NAME_MAX - MARK.len() - 8;
/// Suffix of the temporary name, followed by eight hexadecimal digits.
const MARK: &str = ".vm";
/// Suffix of the name that grants the right to replace a dead socket.
const RIGHT: &str = ".next";
/// Maximum number of waiting clients. The kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Attempts to claim a name that another process is claiming.
const ATTEMPTS: u32 = 8;
/// Only the user may connect: a client of a monitor's socket reaches the guest.
const PRIVATE: u32 = 0o600;

const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

const _: () = assert!(RIGHT.len() <= MARK.len() + 8);

/// Why a socket can't get its name. The message continues a sentence that starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum NamedSocketError {
    /// The path is longer than [`NAMED_SOCKET_MAX`].
    #[error(
        "has {0} bytes, and the name of a socket to listen at {NAMED_SOCKET_MAX} at most: choose a shorter path"
    )]
    TooLong(usize),
    /// There is a file at the path that isn't a socket.
    #[error("is there and is no socket: move it away, or choose another path")]
    NoSocket,
    /// Another process listens at the path.
    #[error("is in use by another program: stop that one, or choose another path")]
    InUse,
    /// The path has a dead socket, and taking it over fails at another path.
    #[error("can't be taken over: {} {inner}", path.display())]
    Right {
        /// The path next to the socket's.
        path: PathBuf,
        /// What is wrong at that path.
        inner: Box<NamedSocketError>,
    },
    /// The directory of the path doesn't exist.
    #[error("can't be made: the directory {} doesn't exist: create it, or choose another path", .0.display())]
    NoDirectory(PathBuf),
    /// A system call failed.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

impl NamedSocketError {
    /// The error of creating a socket at `path`.
    fn made(path: &Path, error: io::Error) -> Self {
        match missing_directory(path) {
            Some(directory) if error.kind() == io::ErrorKind::NotFound => {
                Self::NoDirectory(directory.to_owned())
            }
            _ => Self::Host("can't be made a socket", error),
        }
    }
}

impl From<NamedSocketError> for io::Error {
    fn from(error: NamedSocketError) -> Self {
        let kind = match &error {
            NamedSocketError::TooLong(_) => io::ErrorKind::InvalidInput,
            NamedSocketError::NoSocket => io::ErrorKind::AlreadyExists,
            NamedSocketError::InUse | NamedSocketError::Right { .. } => io::ErrorKind::AddrInUse,
            NamedSocketError::NoDirectory(_) => io::ErrorKind::NotFound,
            NamedSocketError::Host(_, source) => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Matches no file: inode numbers start at 1.
const NO_INODE: (u64, u64) = (0, 0);

/// A socket that listens at a path, with mode 0600 whatever the umask. Dropping it removes its name, if it
/// still owns it. A [path keeper](crate::path_keeper) is waited for three seconds at most.
#[derive(Debug)]
pub struct NamedSocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode number, by which the socket recognizes its name. The socket keeps the inode alive, so
    /// its number isn't reused.
    inode: (u64, u64),
}

impl NamedSocket {
    /// Listens at `path`. Replaces a socket there whose listener is dead.
    ///
    /// # Errors
    /// The path is too long, or something other than a dead socket is there.
    pub fn listen(path: &Path) -> Result<Self, NamedSocketError> {
        check_len(path)?;
        let (draft, socket) = draft(path).map_err(|error| NamedSocketError::made(path, error))?;
        let named = inode(&draft).map_err(|error| NamedSocketError::made(path, error)).and_then(|inode| {
            claim(&draft, path)?;
            Ok(inode)
        });
        // The socket has its final name by now, or never gets it.
        let _ = remove_file(&draft);
        Ok(Self { socket, inode: named?, path: path.to_owned() })
    }

    /// Checks whether [`listen`](Self::listen) would succeed, without changing anything at `path`. Nobody can
    /// connect to the socket returned.
    ///
    /// # Errors
    /// As for [`listen`](Self::listen).
    pub fn look(path: &Path) -> Result<Self, NamedSocketError> {
        check_len(path)?;
        is_dead(path)?;
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let writable = access(directory, Access::WRITE_OK | Access::EXEC_OK);
        writable.map_err(|errno| NamedSocketError::made(path, errno.into()))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None);
        let socket = socket.map_err(|errno| NamedSocketError::made(path, errno.into()))?;
        Ok(Self { socket, inode: NO_INODE, path: path.to_owned() })
    }

    /// The path at which it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts the next client, as a non-blocking connection.
    ///
    /// # Errors
    /// `WouldBlock` if no client is waiting; another error if no descriptor is left.
    pub fn accept(&self) -> io::Result<UnixStream> {
        Ok(accept_with(&self.socket, NON_BLOCKING)?.into())
    }
}

impl AsFd for NamedSocket {
    /// Readable when a client is waiting.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for NamedSocket {
    /// Readable when a client is waiting.
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for NamedSocket {
    fn drop(&mut self) {
        // If another process has taken over the name by force, it is left.
        let _ = remove_if_same(&self.path, self.inode.0, self.inode.1, Contents::Any);
    }
}

/// The directory of `path`, if it doesn't exist.
pub fn missing_directory(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    std::fs::metadata(directory)
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        .then_some(directory)
}

/// Connects to the socket at `path`, without blocking. The connection is non-blocking. A
/// [path keeper](crate::path_keeper) is waited for three seconds at most.
///
/// # Errors
/// Nobody listens there, or the backlog is full (EAGAIN); EACCES if the keeper may not connect to it, EPIPE if it
/// has ended, ETIMEDOUT if it doesn't answer.
pub fn connect_unix(path: &Path) -> Result<UnixStream, Errno> {
    path_keeper::connect(path).map(UnixStream::from)
}

/// Whether the peer is a monitor's [`NamedSocket`], of this machine or another.
pub fn is_monitors(connection: &UnixStream) -> bool {
    let Ok(address) = connection.peer_addr() else { return false };
    let name = address.as_pathname().map_or(&[][..], |path| path.as_os_str().as_bytes());
    let Some((rest, digits)) = name.split_last_chunk::<8>() else { return false };
    rest.ends_with(MARK.as_bytes()) && digits.iter().all(u8::is_ascii_hexdigit)
}

fn check_len(path: &Path) -> Result<(), NamedSocketError> {
    let len = path.as_os_str().len();
    if len > NAMED_SOCKET_MAX { Err(NamedSocketError::TooLong(len)) } else { Ok(()) }
}

/// Creates a listening socket under an unpredictable temporary name.
fn draft(path: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    // The standard library seeds its hashers with random numbers from the kernel.
    let number = RandomState::new().hash_one(0) as u32;
    let draft = with(path, &format!("{MARK}{number:08x}"));
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    // The socket's mode, less the umask, becomes the mode of the file that bind creates (Linux,
    // net/unix/af_unix.c, unix_bind_bsd), so nobody else can connect at any time.
    fchmod(&socket, Mode::from_raw_mode(PRIVATE))?;
    bind(&socket, &SocketAddrUnix::new(&draft)?)?;
    // Needed if the umask removes the user's own permissions.
    let opened = set_permissions(&draft, Permissions::from_mode(PRIVATE));
    let opened = opened.and_then(|()| Ok(listen(&socket, BACKLOG)?));
    if opened.is_err() {
        let _ = remove_file(&draft);
    }
    opened?;
    Ok((draft, socket))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(end);
    name.into()
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Gives the socket at `draft` its final name.
fn claim(draft: &Path, path: &Path) -> Result<(), NamedSocketError> {
    for _ in 0..ATTEMPTS {
        if name(draft, path)? || is_dead(path)? && take_over(draft, path)? {
            return Ok(());
        }
    }
    Err(NamedSocketError::InUse)
}

/// Links the socket to `path` if that name is free.
fn name(draft: &Path, path: &Path) -> Result<bool, NamedSocketError> {
    match hard_link(draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(NamedSocketError::made(path, error)),
    }
}

/// Replaces a dead socket. Returns false if the state of the name must be checked again.
fn take_over(draft: &Path, path: &Path) -> Result<bool, NamedSocketError> {
    let right = with(path, RIGHT);
    if !name(draft, &right)? {
        // Another monitor is taking it over, or crashed while doing so.
        if is_dead(&right)
            .map_err(|error| NamedSocketError::Right { path: right.clone(), inner: Box::new(error) })?
        {
            let _ = remove_file(&right);
        }
        return Ok(false);
    }
    let refused = |error| NamedSocketError::Host("can't be taken over", error);
    let outcome = match is_dead(path) {
        Ok(true) => rename(&right, path).map(|()| true).map_err(refused),
        other => other,
    };
    if !matches!(outcome, Ok(true)) {
        let _ = remove_file(&right);
    }
    outcome
}

/// Whether `path` is a socket at which nobody listens. False if there is nothing.
fn is_dead(path: &Path) -> Result<bool, NamedSocketError> {
    match symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(NamedSocketError::NoSocket),
        // It has been removed in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(NamedSocketError::Host("can't be taken over", error)),
    }
    // Not through a keeper: whoever names a socket has the file system.
    match connect_directly(path) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // A socket with a full backlog is in use too.
        Ok(_) | Err(Errno::AGAIN) => Err(NamedSocketError::InUse),
        // For example, a datagram socket.
        Err(error) => Err(NamedSocketError::Host("is another's socket", error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("v.sock")
    }

    fn mode(path: &Path) -> u32 {
        symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// Runs this test in a process of its own, because the umask is the process's, and returns the mode that
    /// it prints.
    fn mode_under_umask(umask: &str) -> String {
        let name = "unix::tests::named_socket_is_its_users_alone_whatever_the_umask";
        let program = std::env::current_exe().unwrap();
        let script =
            format!("umask {umask}; VMM_UMASKED=1 exec '{}' --exact {name} --nocapture", program.display());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.split_once("mode=").map_or(said.clone(), |(_, mode)| mode[..3].to_owned())
    }

    #[test]
    fn named_socket_that_is_only_looked_at_leaves_its_directory_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        // It never listens: a listener's descriptor could survive for a moment in a process that another test
        // starts.
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(path(&directory)).unwrap()).unwrap();
        let dead = inode(&path(&directory)).unwrap();
        let before = symlink_metadata(directory.path()).unwrap().modified().unwrap();
        drop(NamedSocket::look(&path(&directory)).unwrap());
        assert_eq!(inode(&path(&directory)).unwrap(), dead);
        drop(NamedSocket::look(&directory.path().join("new.sock")).unwrap());
        assert_eq!(symlink_metadata(directory.path()).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn named_socket_that_is_only_looked_at_is_refused_where_it_could_not_be_had() {
        let directory = tempfile::tempdir().unwrap();
        let look = |path: &Path| NamedSocket::look(path).map(drop).map_err(|error| error.to_string());
        let _other = UnixListener::bind(path(&directory)).unwrap();
        let in_use = "is in use by another program: stop that one, or choose another path";
        assert_eq!(look(&path(&directory)), Err(in_use.to_owned()));
        let none = directory.path().join("none");
        let missing = format!(
            "can't be made: the directory {} doesn't exist: create it, or choose another path",
            none.display()
        );
        assert_eq!(look(&none.join("v.sock")), Err(missing.clone()));
        assert_eq!(NamedSocket::listen(&none.join("v.sock")).unwrap_err().to_string(), missing);
        let long = look(&directory.path().join("x".repeat(NAMED_SOCKET_MAX))).unwrap_err();
        assert!(long.contains("choose a shorter path"), "{long}");
    }

    #[test]
    fn named_socket_is_its_users_alone_whatever_the_umask() {
        if std::env::var_os("VMM_UMASKED").is_some() {
            let directory = tempfile::tempdir().unwrap();
            // The directory's own mode gives the user access under any umask.
            set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
            let _socket = NamedSocket::listen(&path(&directory)).unwrap();
            println!("mode={:o}", mode(&path(&directory)));
            return;
        }
        assert_eq!(["000", "022", "077", "277"].map(mode_under_umask), ["600"; 4]);
    }

    #[test]
    fn named_socket_whose_name_another_has_taken_leaves_it() {
        let directory = tempfile::tempdir().unwrap();
        let ours = NamedSocket::listen(&path(&directory)).unwrap();
        remove_file(path(&directory)).unwrap();
        let _theirs = UnixListener::bind(path(&directory)).unwrap();
        drop(ours);
        UnixStream::connect(path(&directory)).unwrap();
    }

    #[test]
    fn named_socket_removes_its_own_name_and_leaves_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let socket = NamedSocket::listen(&path(&directory)).unwrap();
        UnixStream::connect(path(&directory)).unwrap();
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        drop(socket);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn named_socket_is_a_monitors_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let _ours = NamedSocket::listen(&path(&directory)).unwrap();
        assert!(is_monitors(&connect_unix(&path(&directory)).unwrap()));
        let other = directory.path().join("program.sock");
        let _theirs = UnixListener::bind(&other).unwrap();
        assert!(!is_monitors(&connect_unix(&other).unwrap()));
    }

    #[test]
    fn named_socket_with_a_name_too_long_says_how_long_it_may_be() {
        let error = NamedSocket::listen(Path::new(&"x".repeat(97))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "has 97 bytes, and the name of a socket to listen at 96 at most: choose a shorter path"
        );
    }
}
