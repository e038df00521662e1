//! Waits for file descriptors.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Makes `fd` non-blocking.
pub(crate) fn set_nonblocking(fd: impl AsFd) {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).expect("flags of an open descriptor");
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).expect("O_NONBLOCK is for every descriptor");
}

/// Waits until `fd` is ready for `events` or broken. False if `until` comes first.
pub(crate) fn wait_ready(fd: impl AsFd, events: PollFlags, until: Option<Instant>) -> bool {
    loop {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                // Rounded up, so that the last millisecond isn't a busy loop.
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(fd.as_fd(), events)], timeout) {
            Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}
