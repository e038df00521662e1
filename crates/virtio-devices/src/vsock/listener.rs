//! The socket at which the host's programs connect.
//!
//! Who has the name is decided without a lock. A socket is bound and listens under another name first, and then gets its own
//! by link(2), of which the kernel lets one of many win. So at every moment the name is that of a socket that listens, or of one
//! whose listener has died, and connect(2) tells these apart. A dead one is renamed before it's removed, and asked
//! once more: if another monitor has been faster, it was that one's, and it gets its name back.

use std::fs::{hard_link, remove_file, rename, symlink_metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use vmm_virtio::OpenError;

use crate::host_file::Place;

/// What a name may have, in bytes: sun_path without its NUL (unix(7)).
const NAME_MAX: usize = 107;
/// `_` and the longest port, which are behind the path where the guest's connections arrive.
const PORT_LEN: usize = 11;
/// `.`, and a number in hexadecimal, which are behind it before the socket has its name.
const DRAFT_LEN: usize = 9;
/// Clients that may wait for us: as many as connections. The kernel takes less, see net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How often a name is asked for that was another's a moment ago.
const ATTEMPTS: u32 = 8;

const _: () = assert!(DRAFT_LEN <= PORT_LEN);

const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

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
        connect_to(Path::new(&name))
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

fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
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
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{:08x}", u32::from_le_bytes(number)));
    Ok(name.into())
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Gives the socket at `draft` its name too.
fn claim(draft: &Path, place: Place<'_>) -> Result<(), OpenError> {
    let refused = |error: &io::Error| place.host("can't be made a socket", error);
    for _ in 0..ATTEMPTS {
        match hard_link(draft, place.path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_dead(place)?;
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(refused(&io::ErrorKind::AlreadyExists.into()))
}

/// Removes what has the name, if it is a socket at which nobody listens.
fn remove_dead(place: Place<'_>) -> Result<(), OpenError> {
    let Place { path, .. } = place;
    let refused = |error: &io::Error| place.host("can't be taken over", error);
    match symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(place.wrong("is there and is no socket: move it away, or choose another path")),
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(&error)),
    }
    if !is_dead(place)? {
        return Ok(());
    }
    let grave = sibling(path).map_err(|error| refused(&error))?;
    match rename(path, &grave) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(&error)),
    }
    let is_still_dead = is_dead(Place { path: &grave, ..place });
    if !matches!(is_still_dead, Ok(true)) {
        // Another monitor's, which took the dead one over a moment ago.
        let _ = hard_link(&grave, path);
    }
    let _ = remove_file(&grave);
    is_still_dead.map(drop).map_err(|_| in_use(place))
}

/// Whether nobody listens at this socket. False if it is gone.
fn is_dead(place: Place<'_>) -> Result<bool, OpenError> {
    match connect_to(place.path) {
        Err(error) if error.raw_os_error() == Some(Errno::CONNREFUSED.raw_os_error()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // With a full backlog it's in use all the same.
        Ok(_) => Err(in_use(place)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(in_use(place)),
        // A socket of datagrams, for one.
        Err(error) => Err(place.host("is another's socket", &error)),
    }
}

fn in_use(place: Place<'_>) -> OpenError {
    place.wrong("is in use by another program: stop that one, or choose another path")
}
