//! Messages with at most one descriptor (SCM_RIGHTS in unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

pub(super) struct Received {
    /// Bytes in the buffer; 0 also if the other end is closed.
    pub(super) len: usize,
    /// The message was longer than the buffer.
    pub(super) is_cut: bool,
    pub(super) descriptor: Option<OwnedFd>,
}

/// Sends without blocking.
pub(super) fn send(to: &OwnedFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        // There is space for one.
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// Receives a message, with the first of its descriptors. The others are closed.
pub(super) fn receive(from: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let received = loop {
        // The kernel closes descriptors that don't fit.
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(from, &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(received) => {
                let descriptors = control.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                    _ => None,
                });
                // The space for one has room for two, because it is aligned.
                let descriptor = descriptors.flatten().reduce(|first, _| first);
                let is_cut = received.flags.contains(ReturnFlags::TRUNC);
                break Received { len: received.bytes, is_cut, descriptor };
            }
        }
    };
    Ok(received)
}
