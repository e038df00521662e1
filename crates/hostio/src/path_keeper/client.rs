//! The monitor's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use vmm_sandbox::Allow;

use super::by_path::{self, Contents};
use super::message::{receive, send};
use super::protocol::{REPLY_LEN, Request, decode_outcome};

/// How long a request may take. The keeper needs microseconds, unless its storage hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The keeper that this process asks.
static KEEPER: OnceLock<Client> = OnceLock::new();

/// The system calls of a thread that asks the keeper.
pub const KEPT_CALLS: &[Allow] = &[
    // Not datagrams, which can be sent to other programs' sockets.
    Allow::all(
        libc::SYS_socketpair,
        &[(0, &[libc::AF_UNIX as u32]), (1, &[(libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u32])],
    ),
    // Not TCP Fast Open, which connects.
    Allow::masked(libc::SYS_sendmsg, 2, libc::MSG_FASTOPEN as u32, 0),
    Allow::call(libc::SYS_recvmsg),
    Allow::call(libc::SYS_ppoll),
];

/// From now on, [`connect_unix`](crate::connect_unix), [`remove_if_same`] and the drop of a
/// [`NamedSocket`](crate::NamedSocket) in this process ask the keeper at the other end of `socket`. Later calls
/// have no effect.
pub fn delegate_to(socket: OwnedFd) {
    let _ = KEEPER.set(Client::new(socket, PATIENCE));
}

/// This process's end of the socket to its keeper, if it has one. It hangs up if the keeper ends.
pub fn socket() -> Option<BorrowedFd<'static>> {
    KEEPER.get().map(|keeper| keeper.socket.as_fd())
}

/// Connects to `path` without blocking, or through the keeper, for which it waits three seconds at most.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    KEEPER.get().map_or_else(|| by_path::connect(path), |keeper| keeper.connect(path))
}

/// Removes the name `path`, if it is that of this inode, without following a link. A keeper is waited for three
/// seconds at most, and may remove the name later.
///
/// # Errors
/// ESTALE if it is another's, ENOTEMPTY if it has contents and must have none; EACCES if the keeper may not
/// remove it, EPIPE if it has ended, ETIMEDOUT if it doesn't answer.
pub fn remove_if_same(path: &Path, device: u64, inode: u64, contents: Contents) -> Result<(), Errno> {
    match KEEPER.get() {
        None => by_path::remove_if_same(path, device, inode, contents),
        Some(keeper) => keeper.remove(path, device, inode, contents),
    }
}

/// Asks a keeper. Any number of threads may do so at once.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    /// How long a request may take.
    patience: Duration,
    /// Sockets for a reply, for when the host is out of descriptors: what was made must be removed even then.
    spare: Mutex<Option<(OwnedFd, OwnedFd)>>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, patience: Duration) -> Self {
        Self { socket, patience, spare: Mutex::new(reply_sockets().ok()) }
    }

    /// Sockets for a reply: our end and the keeper's.
    fn reply_sockets(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        let spare = || self.spare.lock().ok().and_then(|mut spare| spare.take());
        reply_sockets().or_else(|errno| spare().ok_or(errno))
    }

    pub(super) fn connect(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.ask(&Request::Connect { path })?.ok_or(Errno::PROTO)
    }

    pub(super) fn remove(
        &self,
        path: &Path,
        device: u64,
        inode: u64,
        contents: Contents,
    ) -> Result<(), Errno> {
        self.ask(&Request::Remove { path, device, inode, contents }).map(drop)
    }

    /// Returns the descriptor that came with the reply.
    ///
    /// # Errors
    /// The keeper's; EPIPE if it has ended, ETIMEDOUT if it doesn't answer.
    fn ask(&self, request: &Request<'_>) -> Result<Option<OwnedFd>, Errno> {
        let message = request.encode()?;
        let deadline = Instant::now() + self.patience;
        let (ours, theirs) = self.reply_sockets()?;
        self.send(&message, &theirs, deadline)?;
        // The keeper has the only other copy, so its end is noticed.
        drop(theirs);
        wait(&ours, PollFlags::IN, deadline)?;
        let mut reply = [0; REPLY_LEN];
        let received = receive(&ours, &mut reply, RecvFlags::DONTWAIT)?;
        if received.len == 0 {
            return Err(Errno::PIPE);
        }
        drop(ours);
        if let Ok(mut spare) = self.spare.lock()
            && spare.is_none()
        {
            *spare = reply_sockets().ok();
        }
        decode_outcome(&reply[..received.len])?;
        Ok(received.descriptor)
    }

    fn send(&self, message: &[u8], reply_to: &OwnedFd, deadline: Instant) -> Result<(), Errno> {
        loop {
            match send(&self.socket, message, Some(reply_to.as_fd())) {
                // Unread requests fill the buffer: the keeper hangs, or many threads ask at once.
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::OUT, deadline)?,
                // The keeper has ended without reading all requests.
                Err(Errno::CONNRESET) => return Err(Errno::PIPE),
                sent => return sent,
            }
        }
    }
}

/// Waits until the socket is ready, or its other end closed.
///
/// # Errors
/// ETIMEDOUT.
pub(super) fn wait(socket: &OwnedFd, events: PollFlags, deadline: Instant) -> Result<(), Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(socket, events)], Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Err(Errno::INTR) => {}
            polled => return polled.map(drop),
        }
    }
}

fn reply_sockets() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
