//! The keeper's side.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use vmm_sandbox::Allow;

use super::by_path::{Contents, connect, is_socket, remove_if_same};
use super::grant::Grant;
use super::message::{receive, send};
use super::protocol::{REQUEST_MAX, Request, encode_outcome};

/// The system calls of a keeper, from the end of its confinement on.
pub const KEEPER_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_recvmsg),
    Allow::call(libc::SYS_sendmsg),
    Allow::when(libc::SYS_socket, 0, &[libc::AF_UNIX as u32]),
    Allow::call(libc::SYS_connect),
    Allow::call(libc::SYS_newfstatat),
    Allow::call(libc::SYS_unlinkat),
];

/// Serves the requests that arrive at `socket`, a SOCK_SEQPACKET one, until its other end is closed. Blocks,
/// and does one thing at a time.
///
/// A request that `grant` doesn't name fails with EACCES, a malformed one with EINVAL. One without a socket for
/// its reply is ignored. An empty message can't be told from the end, and ends it.
pub fn serve(socket: OwnedFd, grant: &Grant) {
    let mut buffer = [0; REQUEST_MAX];
    while let Ok(received) = receive(&socket, &mut buffer, RecvFlags::empty())
        && received.len > 0
    {
        let Some(reply_to) = received.descriptor else { continue };
        let message = (!received.is_cut).then(|| &buffer[..received.len]);
        let outcome = carry_out(message, grant);
        let connection = outcome.as_ref().ok().and_then(Option::as_ref).map(AsFd::as_fd);
        let reply = encode_outcome(outcome.as_ref().map(drop).map_err(|errno| *errno));
        // If it fails, nobody waits for the reply, or the monitor isn't what it was: it may have sent any
        // descriptor.
        let _ = send(&reply_to, &reply, connection);
    }
}

/// Carries out the request in `message`, which is `None` if it is longer than any. Returns the connection, if
/// that was requested.
fn carry_out(message: Option<&[u8]>, grant: &Grant) -> Result<Option<OwnedFd>, Errno> {
    let request = message.and_then(Request::decode).ok_or(Errno::INVAL)?;
    if !grant.allows(&request) {
        return Err(Errno::ACCESS);
    }
    match request {
        Request::Connect { path } => connect(path).map(Some),
        Request::Remove { path, device, inode, contents } => {
            // Whatever is asked: a file with contents is never removed, only a socket's name.
            let contents = if is_socket(path) { contents } else { Contents::Empty };
            remove_if_same(path, device, inode, contents).map(|()| None)
        }
    }
}
