//! Eventfds of the caller.
#![allow(unsafe_code)] // kvm-ioctls takes eventfds as a type that owns them.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use vmm_sys_util::eventfd::EventFd;

/// The caller's eventfd as the type that kvm-ioctls takes, which reads its number only.
pub(crate) fn as_event_fd(fd: BorrowedFd<'_>) -> ManuallyDrop<EventFd> {
    // SAFETY: the descriptor is open while `fd` is borrowed, which the callers do until the ioctl has returned. It isn't
    // owned, but never closed by this value either.
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_raw_fd()) })
}
