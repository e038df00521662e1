//! Ioctls that kvm-ioctls lacks.
#![allow(unsafe_code)] // Ioctls are unsafe.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Xsave, kvm_device_attr, kvm_interrupt, kvm_irqchip,
    kvm_nested_state, kvm_tpr_access_ctl,
};
use kvm_ioctls::{Error, VcpuFd};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
ioctl_iowr_nr!(KVM_GET_NESTED_STATE, KVMIO, 0xbe, kvm_nested_state);
ioctl_iow_nr!(KVM_SET_NESTED_STATE, KVMIO, 0xbf, kvm_nested_state);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
ioctl_iowr_nr!(KVM_TPR_ACCESS_REPORTING, KVMIO, 0x92, kvm_tpr_access_ctl);

/// KVM_INTERRUPT: injects an external interrupt.
pub(crate) fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), Error> {
    let interrupt = kvm_interrupt { irq: vector.into() };
    // SAFETY: `vcpu` is a vCPU's descriptor, and the kernel only reads the structure, whose type is the one
    // encoded in the request number.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_INTERRUPT(), &interrupt) };
    check(result)
}

/// KVM_TPR_ACCESS_REPORTING: enables or disables exits for TPR accesses.
pub(crate) fn report_tpr_access(vcpu: &VcpuFd, enabled: bool) -> Result<(), Error> {
    let mut control = kvm_tpr_access_ctl { enabled: enabled.into(), ..Default::default() };
    // SAFETY: `vcpu` is a vCPU's descriptor, and the kernel reads and writes only the structure, whose type
    // is the one encoded in the request number.
    let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_TPR_ACCESS_REPORTING(), &mut control) };
    check(result)
}

/// KVM_GET_STATS_FD of a VM or a vCPU.
pub(crate) fn statistics(of: &impl AsRawFd) -> Result<File, Error> {
    // SAFETY: the request takes no argument. Descriptors other than a VM's or a vCPU's refuse it.
    let fd = unsafe { ioctl(of, KVM_GET_STATS_FD()) };
    if fd < 0 {
        return Err(Error::last());
    }
    // SAFETY: the kernel has just opened this descriptor, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// KVM_GET_XSAVE2 of a vCPU whose XSAVE area has `words` 32-bit words according to its VM (KVM_CAP_XSAVE2).
pub(crate) fn xsave(vcpu: &VcpuFd, area: &mut Xsave, words: usize) -> Result<(), Error> {
    let room = area.as_fam_struct_ref().xsave.region.len() + area.as_slice().len();
    assert!(room >= words, "KVM writes {words} words, there is room for {room}");
    // SAFETY: KVM writes as many bytes as its VM's KVM_CAP_XSAVE2 reports, and the check above ensures that
    // they fit. Features that would enlarge the area are enabled by arch_prctl(2), which this process never
    // calls.
    unsafe { vcpu.get_xsave2(area) }
}

/// KVM_SET_XSAVE2 of an area that begins with `region`, or KVM_SET_XSAVE if that is the whole area.
pub(crate) fn set_xsave(vcpu: &VcpuFd, area: &mut Xsave, region: &[u32]) -> Result<(), Error> {
    // SAFETY: the length of the flexible array isn't changed.
    let header = unsafe { area.as_mut_fam_struct() };
    header.xsave.region.copy_from_slice(region);
    // SAFETY: KVM reads as many bytes as its VM's KVM_CAP_XSAVE2 reports, and the caller allocated the area
    // for that.
    unsafe { vcpu.set_xsave2(area) }
}

/// KVM_GET_NESTED_STATE: writes a struct kvm_nested_state and its data to the start of `buffer`.
pub(crate) fn nested_state(vcpu: &VcpuFd, buffer: &mut [u8]) -> Result<(), Error> {
    assert!(buffer.len() >= size_of::<kvm_nested_state>(), "there is room for the structure");
    // Its member `size`: the length of the buffer.
    let len = buffer.len() as u32;
    buffer[4..8].copy_from_slice(&len.to_ne_bytes());
    // SAFETY: `vcpu` is a vCPU's descriptor. The kernel reads the member `size` and writes at most that many
    // bytes, which is the length of `buffer`. It copies to and from user space, so alignment doesn't matter.
    let result = unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_NESTED_STATE(), buffer.as_mut_ptr()) };
    check(result)
}

/// KVM_SET_NESTED_STATE of a struct kvm_nested_state and its data.
pub(crate) fn set_nested_state(vcpu: &VcpuFd, state: &[u8]) -> Result<(), Error> {
    assert!(state.len() >= size_of::<kvm_nested_state>(), "the structure is all there");
    assert_eq!(state[4..8], (state.len() as u32).to_ne_bytes(), "its member `size` is its length");
    // SAFETY: `vcpu` is a vCPU's descriptor. The kernel reads the structure and its data, `size` bytes in
    // total, all of which are in `state`.
    let result = unsafe { ioctl_with_ptr(vcpu, KVM_SET_NESTED_STATE(), state.as_ptr()) };
    check(result)
}

/// The registers of an interrupt controller that KVM_GET_IRQCHIP has read into a default [`kvm_irqchip`].
pub(crate) fn chip_bytes(chip: &kvm_irqchip) -> [u8; 512] {
    // SAFETY: `dummy` covers the whole union, all bytes of which are initialized: `kvm_irqchip::default` zeroes them, and the kernel
    // only overwrites them. Every byte is a valid c_char.
    let bytes = unsafe { chip.chip.dummy };
    bytes.map(i8::cast_unsigned)
}

/// KVM_GET_DEVICE_ATTR of a vCPU's TSC offset.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> Result<u64, Error> {
    let mut offset = 0_u64;
    let attribute = tsc_offset_at((&raw mut offset).expose_provenance() as u64);
    // SAFETY: `vcpu` is a vCPU's descriptor. The kernel reads the structure and writes eight bytes to the
    // address in it, which is that of `offset`, a local variable.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) };
    check(result).map(|()| offset)
}

/// KVM_SET_DEVICE_ATTR of a vCPU's TSC offset.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> Result<(), Error> {
    let attribute = tsc_offset_at((&raw const offset).expose_provenance() as u64);
    // SAFETY: as above; the kernel reads the eight bytes.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) };
    check(result)
}

fn tsc_offset_at(addr: u64) -> kvm_device_attr {
    kvm_device_attr { group: KVM_VCPU_TSC_CTRL, attr: KVM_VCPU_TSC_OFFSET.into(), addr, flags: 0 }
}

fn check(result: libc::c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::last()) }
}
