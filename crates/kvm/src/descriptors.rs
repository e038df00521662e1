//! The descriptors of KVM, its VMs and its vCPUs, for ioctls that this crate has no method for.
#![allow(unsafe_code)] // kvm-ioctls gives raw descriptors only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Kvm, KvmVcpu, Vm};

/// The descriptor of `/dev/kvm`, which takes the system ioctls of KVM's api.rst.
impl AsFd for Kvm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: `self.fd` owns the descriptor and keeps it open for as long as `self`, which the result borrows, lives.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// The VM's descriptor, which takes the VM ioctls of KVM's api.rst.
///
/// This crate counts the memory slots itself. A slot that is set by this descriptor must have a number above all of them.
impl AsFd for Vm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: as for Kvm.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// The vCPU's descriptor, which takes the vCPU ioctls of KVM's api.rst. KVM expects them on the thread that runs the vCPU.
impl AsFd for KvmVcpu {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: as for Kvm.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}
