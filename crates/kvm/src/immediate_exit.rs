//! Makes a running vCPU exit, from any thread.
#![allow(unsafe_code)] // The kernel reads the flag in a page shared with user space.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;

use crate::Error;

/// One page: `kvm_run` is at the start of a vCPU's mapping, and the flag is its second byte.
const PAGE_LEN: usize = 4096;

/// The flag is set while any bit is. This bit belongs to the threads that kick the vCPU.
const KICKED: u8 = 1 << 0;
/// This bit belongs to the vCPU's own thread, so that clearing it doesn't lose a concurrent kick.
const COMPLETING: u8 = 1 << 1;

/// A vCPU's `immediate_exit` flag (KVM api.rst, KVM_RUN).
///
/// While it is set, KVM_RUN completes a pending access and returns at once. Set it, then signal the thread:
/// the signal makes a vCPU in the guest exit, and one about to enter sees the flag. A signal alone is lost if
/// it arrives just before KVM_RUN.
#[derive(Debug)]
pub struct ImmediateExit {
    /// A separate mapping of the vCPU's first page, which may outlive the vCPU's own.
    page: *mut u8,
}

// SAFETY: the page is mapped while the value lives, isn't tied to a thread, and is only accessed through an
// atomic.
unsafe impl Send for ImmediateExit {}
// SAFETY: as for Send; the atomic works through shared references.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    pub(crate) fn new(vcpu: &impl AsRawFd) -> Result<Self, Error> {
        // SAFETY: a new mapping at an address chosen by the kernel affects no existing memory. The mapping
        // keeps the vCPU's file and its pages alive.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(Error::Ioctl { name: "mmap of kvm_run", source: io::Error::last_os_error() });
        }
        Ok(Self { page: page.cast() })
    }

    fn flag(&self) -> &AtomicU8 {
        const OFFSET: usize = offset_of!(kvm_run, immediate_exit);
        const { assert!(OFFSET < PAGE_LEN) }
        // SAFETY: OFFSET is inside the page, which is a live mapping of PAGE_LEN bytes.
        let flag = unsafe { self.page.add(OFFSET) };
        // SAFETY: `flag` is valid for reads and writes while `self` lives, an AtomicU8 needs no alignment,
        // and all accesses to this byte from user space are atomic. The kernel only reads it.
        unsafe { AtomicU8::from_ptr(flag) }
    }

    /// Makes the current or next KVM_RUN return, and all later ones until [`clear`](Self::clear).
    pub fn set(&self) {
        self.flag().fetch_or(KICKED, Ordering::SeqCst);
    }

    /// Lets KVM_RUN enter the guest again.
    pub fn clear(&self) {
        self.flag().fetch_and(!KICKED, Ordering::SeqCst);
    }

    /// Restricts KVM_RUN to completing an access while the result lives.
    pub(crate) fn complete_only(&self) -> CompleteOnly<'_> {
        self.flag().fetch_or(COMPLETING, Ordering::SeqCst);
        CompleteOnly(self)
    }
}

/// While it lives, KVM_RUN doesn't enter the guest.
pub(crate) struct CompleteOnly<'a>(&'a ImmediateExit);

impl Drop for CompleteOnly<'_> {
    fn drop(&mut self) {
        self.0.flag().fetch_and(!COMPLETING, Ordering::SeqCst);
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made. No reference into it exists, because `flag` borrows
        // `self`.
        let unmapped = unsafe { libc::munmap(self.page.cast(), PAGE_LEN) };
        debug_assert_eq!(unmapped, 0, "munmap of our own mapping");
    }
}
