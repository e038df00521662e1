//! The socket at which the host's programs connect.
//!
//! Who has the name is decided without a lock. A socket is bound and listens under another name first, and then gets its own
//! by link(2), of which the kernel lets one of many win. So at every moment the name is that of a socket that listens, or of one
//! whose listener has died, and connect(2) tells these apart. A dead one is replaced by rename(2), so that the name is never
//! free meanwhile; and only by who has the right to do so, which is a second name that is won in the same way. Who has it
//! asks once more whether the first is dead: another monitor may have been faster.

use std::fs::{hard_link, remove_file, rename, symlink_metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept_with, bind, listen, socket_with};
use vmm_virtio::OpenError;

use crate::host_file::Place;
use crate::unix::{NAME_MAX, NON_BLOCKING, connect};

/// `_` and the longest port, which are behind the path where the guest's connections arrive.
const PORT_LEN: usize = 11;
/// `.`, and a number in hexadecimal, which are behind it before the socket has its name.
const DRAFT_LEN: usize = 9;
/// Behind it for the right to replace a dead socket.
const RIGHT: &str = ".next";
/// Clients that may wait for us: as many as connections. The kernel takes less, see net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How often a name is asked for that was another's a moment ago.
const ATTEMPTS: u32 = 8;

const _: () = assert!(DRAFT_LEN <= PORT_LEN && RIGHT.len() <= PORT_LEN);

/// A socket that listens, whose name is gone when it is.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and number of its inode, by which it is known that the name is still ours.
    inode: (u64, u64),
}

impl Listener {
    /// # Errors
    /// The path is too long, or something else is there that isn't a dead socket.
    pub(super) fn open(path: PathBuf) -> Result<Self, OpenError> {
        let place = Place { path: &path, field: "path" };
        let len = path.as_os_str().len();
        let most = NAME_MAX - PORT_LEN;
        if len > most {
            let problem = format!(
                "has {len} bytes with its directory, and a socket's name with \"_\" and a port behind it \
                 {NAME_MAX}: at most {most} are left"
            );
            return Err(place.wrong(&problem));
        }
        let refused = |error: &io::Error| place.host("can't be made a socket", error);
        let (draft, socket) = draft(&path).map_err(|error| refused(&error))?;
        let named = inode(&draft).map_err(|error| refused(&error)).and_then(|inode| {
            claim(&draft, place)?;
            Ok(inode)
        });
        // It has its name now, or gets none.
        let _ = remove_file(&draft);
        Ok(Self { socket, inode: named?, path })
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The next client, not blocking.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or no descriptor is left.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        Ok(accept_with(&self.socket, NON_BLOCKING)?.into())
    }

    /// Connects to the host's program that listens for this port.
    ///
    /// # Errors
    /// Nobody does; `WouldBlock` if more wait for it than may; no descriptor is left.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!("_{port}"));
        Ok(connect(Path::new(&name))?)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have taken the name, by force: that one's stays.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = remove_file(&self.path);
        }
    }
}

/// A socket that listens, under a name that nobody else thinks of.
fn draft(path: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    let draft = sibling(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    bind(&socket, &SocketAddrUnix::new(&draft)?)?;
    let listening = listen(&socket, BACKLOG);
    if listening.is_err() {
        let _ = remove_file(&draft);
    }
    listening?;
    Ok((draft, socket))
}

/// The path with a random number behind it.
fn sibling(path: &Path) -> io::Result<PathBuf> {
    let mut number = [0; 4];
    getrandom::fill(&mut number)?;
    Ok(with(path, &format!(".{:08x}", u32::from_le_bytes(number))))
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
fn claim(draft: &Path, place: Place<'_>) -> Result<(), OpenError> {
    for _ in 0..ATTEMPTS {
        if name(draft, place)? || is_dead(place)? && take_over(draft, place)? {
            return Ok(());
        }
    }
    Err(in_use(place))
}

/// Gives it this name, if that is free.
fn name(draft: &Path, place: Place<'_>) -> Result<bool, OpenError> {
    match hard_link(draft, place.path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(place.host("can't be made a socket", &error)),
    }
}

/// Gives it the name of a dead socket. False if it must be asked again who has that.
fn take_over(draft: &Path, place: Place<'_>) -> Result<bool, OpenError> {
    let right = with(place.path, RIGHT);
    let right_place = Place { path: &right, ..place };
    if !name(draft, right_place)? {
        // Another monitor takes it over now, or has crashed in the middle of that.
        if is_dead(right_place)? {
            let _ = remove_file(&right);
        }
        return Ok(false);
    }
    let refused = |error: io::Error| place.host("can't be taken over", &error);
    let outcome = match is_dead(place) {
        Ok(true) => rename(&right, place.path).map(|()| true).map_err(refused),
        other => other,
    };
    if !matches!(outcome, Ok(true)) {
        let _ = remove_file(&right);
    }
    outcome
}

/// Whether it is a socket at which nobody listens. False if it is gone.
fn is_dead(place: Place<'_>) -> Result<bool, OpenError> {
    match symlink_metadata(place.path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(place.wrong("is there and is no socket: move it away, or choose another path")),
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(place.host("can't be taken over", &error)),
    }
    match connect(place.path) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // With a full backlog it's in use all the same.
        Ok(_) | Err(Errno::AGAIN) => Err(in_use(place)),
        // A socket of datagrams, for one.
        Err(error) => Err(place.host("is another's socket", &error.into())),
    }
}

fn in_use(place: Place<'_>) -> OpenError {
    place.wrong("is in use by another program: stop that one, or choose another path")
}
