//! File descriptors of KVM, VMs and vCPUs, for ioctls that this crate doesn't wrap.
#![allow(unsafe_code)] // kvm-ioctls gives raw descriptors only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Kvm, KvmVcpu, Vm};

/// The descriptor of `/dev/kvm`, for system ioctls (KVM api.rst).
impl AsFd for Kvm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: `self.fd` owns the descriptor and keeps it open while `self`, which the result borrows,
        // lives.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// The VM's descriptor, for VM ioctls (KVM api.rst).
///
/// This crate numbers memory slots from 0. A slot that the caller sets needs a number above all of them.
impl AsFd for Vm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: as for Kvm.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// The vCPU's descriptor, for vCPU ioctls (KVM api.rst). Issue them on the thread that runs the vCPU.
impl AsFd for KvmVcpu {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: as for Kvm.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}
