//! Unix sockets with names: those of a monitor's own, and connections to others'.
//!
//! Who has a name is decided without a lock. A socket is bound and listens under another name first, and then gets its own
//! by link(2), of which the kernel lets one of many win. So at every moment the name is that of a socket that listens, or of
//! one whose listener has died, and connect(2) tells these apart. A dead one is replaced by rename(2), so that the name is
//! never free meanwhile; and only by who has the right to do so, which is a second name that is won in the same way. Who has it
//! asks once more whether the first is dead: another monitor may have been faster.
//!
//! The first name stays what the kernel calls the socket, to whoever connects too: [`is_monitors`] knows one by it.

use std::fs::{Permissions, hard_link, remove_file, rename, set_permissions, symlink_metadata};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, access, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

/// What a name may have, in bytes: sun_path without its NUL (unix(7)).
pub const UNIX_NAME_MAX: usize = 107;
/// What the path of a [`NamedSocket`] may have: behind it comes a mark with a number, before the socket has its name.
pub const NAMED_SOCKET_MAX: usize = UNIX_NAME_MAX - MARK.len() - 8;
/// Behind the path and before eight hexadecimal digits, in the name under which a socket is bound.
const MARK: &str = ".vm";
/// Behind the path for the right to replace a dead socket.
const RIGHT: &str = ".next";
/// Clients that may wait. The kernel takes less, see net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How often a name is asked for that was another's a moment ago.
const ATTEMPTS: u32 = 8;
/// For whoever runs the monitor alone: who connects to a socket of the monitor's is at the guest.
const PRIVATE: u32 = 0o600;

const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

const _: () = assert!(RIGHT.len() <= MARK.len() + 8);

/// Why a socket can't have its name. Continues a sentence that begins with the path.
#[derive(Debug, thiserror::Error)]
pub enum NamedSocketError {
    /// Beyond [`NAMED_SOCKET_MAX`].
    #[error(
        "has {0} bytes, and the name of a socket to listen at {NAMED_SOCKET_MAX} at most: choose a shorter path"
    )]
    TooLong(usize),
    /// A file, a directory or such.
    #[error("is there and is no socket: move it away, or choose another path")]
    NoSocket,
    /// Somebody listens there.
    #[error("is in use by another program: stop that one, or choose another path")]
    InUse,
    /// What is there is dead, and another takes it over or something is in the way: at this path.
    #[error("can't be taken over: {} {inner}", path.display())]
    Right {
        /// Beside the socket's.
        path: PathBuf,
        /// What is wrong there.
        inner: Box<NamedSocketError>,
    },
    /// The directory of its name isn't there: at this path.
    #[error("can't be made: the directory {} doesn't exist: create it, or choose another path", .0.display())]
    NoDirectory(PathBuf),
    /// The host refuses.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

impl NamedSocketError {
    /// Of a socket at `path`.
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

/// No file's: their numbers begin at 1.
const NO_INODE: (u64, u64) = (0, 0);

/// A socket that listens at a path, mode 0600 whatever the umask. Dropped, it removes its name, if that is still its own.
#[derive(Debug)]
pub struct NamedSocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and number of its inode, by which it is known that the name is still ours. The socket keeps the inode, so that
    /// its number isn't another's meanwhile.
    inode: (u64, u64),
}

impl NamedSocket {
    /// Listens at `path`, and takes it over from a socket whose listener has died.
    ///
    /// # Errors
    /// The path is too long, or something else is there that isn't a dead socket.
    pub fn listen(path: &Path) -> Result<Self, NamedSocketError> {
        check_len(path)?;
        let (draft, socket) = draft(path).map_err(|error| NamedSocketError::made(path, error))?;
        let named = inode(&draft).map_err(|error| NamedSocketError::made(path, error)).and_then(|inode| {
            claim(&draft, path)?;
            Ok(inode)
        });
        // It has its name now, or gets none.
        let _ = remove_file(&draft);
        Ok(Self { socket, inode: named?, path: path.to_owned() })
    }

    /// What [`listen`](Self::listen) would return, if it could, but nobody can connect to it, and what is at `path` stays.
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

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client, not blocking.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or no descriptor is left.
    pub fn accept(&self) -> io::Result<UnixStream> {
        Ok(accept_with(&self.socket, NON_BLOCKING)?.into())
    }
}

impl AsRawFd for NamedSocket {
    /// Readable when a client waits.
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for NamedSocket {
    fn drop(&mut self) {
        // Somebody may have taken the name, by force: that one's stays.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = remove_file(&self.path);
        }
    }
}

/// The directory in which `path` names a file that could be made, if it isn't there.
pub fn missing_directory(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    std::fs::metadata(directory)
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        .then_some(directory)
}

/// Connects to who listens at `path`; the connection never blocks.
///
/// # Errors
/// Nobody does; EAGAIN if more wait for it than may.
pub fn connect_unix(path: &Path) -> Result<UnixStream, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Whether who listens at the other end of `connection` is a monitor, by a [`NamedSocket`]: of this machine or of another.
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

/// A socket that listens, under a name that nobody else thinks of.
fn draft(path: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    // The standard library's hashers begin with random numbers of the kernel's.
    let number = RandomState::new().hash_one(0) as u32;
    let draft = with(path, &format!("{MARK}{number:08x}"));
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    // The socket's mode, less the umask, is that of the file that bind makes (Linux, net/unix/af_unix.c, unix_bind_bsd): at no
    // time could anybody else connect.
    fchmod(&socket, Mode::from_raw_mode(PRIVATE))?;
    bind(&socket, &SocketAddrUnix::new(&draft)?)?;
    // A umask that takes rights from the user too.
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

/// Gives the socket at `draft` its name too.
fn claim(draft: &Path, path: &Path) -> Result<(), NamedSocketError> {
    for _ in 0..ATTEMPTS {
        if name(draft, path)? || is_dead(path)? && take_over(draft, path)? {
            return Ok(());
        }
    }
    Err(NamedSocketError::InUse)
}

/// Gives it this name, if that is free.
fn name(draft: &Path, path: &Path) -> Result<bool, NamedSocketError> {
    match hard_link(draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(NamedSocketError::made(path, error)),
    }
}

/// Gives it the name of a dead socket. False if it must be asked again who has that.
fn take_over(draft: &Path, path: &Path) -> Result<bool, NamedSocketError> {
    let right = with(path, RIGHT);
    if !name(draft, &right)? {
        // Another monitor takes it over now, or has crashed in the middle of that.
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

/// Whether it is a socket at which nobody listens. False if it is gone.
fn is_dead(path: &Path) -> Result<bool, NamedSocketError> {
    match symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(NamedSocketError::NoSocket),
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(NamedSocketError::Host("can't be taken over", error)),
    }
    match connect_unix(path) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // With a full backlog it's in use all the same.
        Ok(_) | Err(Errno::AGAIN) => Err(NamedSocketError::InUse),
        // A socket of datagrams, for one.
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

    /// The umask is the process's, so each has one of its own: this test again, which says what it finds.
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
        // One that never listens: a listener's descriptor may live on for a moment in a process that another test starts.
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
            // The directory's own mode lets the user in under any umask.
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
