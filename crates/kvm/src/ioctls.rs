//! The ioctls that kvm-ioctls lacks.
#![allow(unsafe_code)] // An ioctl is unsafe by nature.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use kvm_bindings::{KVMIO, kvm_interrupt, kvm_tpr_access_ctl};
use kvm_ioctls::{Error, VcpuFd};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
ioctl_iowr_nr!(KVM_TPR_ACCESS_REPORTING, KVMIO, 0x92, kvm_tpr_access_ctl);

/// KVM_INTERRUPT.
pub(crate) fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), Error> {
    let interrupt = kvm_interrupt { irq: vector.into() };
    // SAFETY: `vcpu` is a vCPU's descriptor, and the kernel only reads the structure, which is the one that the request's
    // number is made of.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_INTERRUPT(), &interrupt) };
    check(result)
}

/// KVM_TPR_ACCESS_REPORTING.
pub(crate) fn report_tpr_access(vcpu: &VcpuFd, enabled: bool) -> Result<(), Error> {
    let mut control = kvm_tpr_access_ctl { enabled: enabled.into(), ..Default::default() };
    // SAFETY: `vcpu` is a vCPU's descriptor, and the kernel reads and writes the structure only, which is the one that the
    // request's number is made of.
    let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_TPR_ACCESS_REPORTING(), &mut control) };
    check(result)
}

/// KVM_GET_STATS_FD of a VM or a vCPU.
pub(crate) fn statistics(of: &impl AsRawFd) -> Result<File, Error> {
    // SAFETY: the request takes no argument. A descriptor of something else than a VM or a vCPU refuses it.
    let fd = unsafe { ioctl(of, KVM_GET_STATS_FD()) };
    if fd < 0 {
        return Err(Error::last());
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::last()) }
}
