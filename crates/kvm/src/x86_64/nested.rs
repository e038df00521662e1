//! Nested virtualization state: the state of a vCPU whose guest is itself a hypervisor.

use std::io;

use kvm_bindings::{
    KVM_STATE_NESTED_FORMAT_SVM, KVM_STATE_NESTED_FORMAT_VMX, KVM_STATE_NESTED_GIF_SET, kvm_nested_state,
};

use crate::error::Named;
use crate::{Error, KvmVcpu, ioctls};

/// Size of struct kvm_nested_state without its data.
const PREFIX_LEN: usize = size_of::<kvm_nested_state>();
/// Size of the header of either format, which follows flags, format and size.
const HEADER_LEN: usize = PREFIX_LEN - 8;

/// A vCPU's nested virtualization state (KVM api.rst KVM_GET_NESTED_STATE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedState {
    /// KVM_STATE_NESTED_FORMAT_VMX or KVM_STATE_NESTED_FORMAT_SVM.
    pub format: u16,
    /// KVM_STATE_NESTED_*, such as KVM_STATE_NESTED_GUEST_MODE: the vCPU is running the nested guest.
    pub flags: u16,
    /// struct kvm_vmx_nested_state_hdr or kvm_svm_nested_state_hdr: the addresses of the guest's control
    /// blocks.
    pub header: [u8; HEADER_LEN],
    /// The control blocks of which KVM holds a copy; may be empty.
    pub data: Vec<u8>,
}

impl NestedState {
    /// Parses what KVM wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (prefix, rest) = bytes.split_at_checked(PREFIX_LEN)?;
        let size = u32::from_ne_bytes(prefix[4..8].try_into().ok()?) as usize;
        Some(Self {
            flags: u16::from_ne_bytes(prefix[..2].try_into().ok()?),
            format: u16::from_ne_bytes(prefix[2..4].try_into().ok()?),
            header: prefix[8..].try_into().ok()?,
            data: rest.get(..size.checked_sub(PREFIX_LEN)?)?.to_vec(),
        })
    }

    /// A struct kvm_nested_state followed by its data.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let size = self.len() as u32;
        let words = [self.flags.to_ne_bytes(), self.format.to_ne_bytes()].concat();
        [&words[..], &size.to_ne_bytes(), &self.header, &self.data].concat()
    }

    pub(super) fn len(&self) -> usize {
        PREFIX_LEN + self.data.len()
    }

    /// Whether the guest doesn't use nested virtualization: the state equals that after a reset.
    fn is_unused(&self) -> bool {
        let unused = match u32::from(self.format) {
            // vmxon_pa, the operand of VMXON.
            KVM_STATE_NESTED_FORMAT_VMX => self.flags == 0 && self.header[..8] == [0xff; 8],
            KVM_STATE_NESTED_FORMAT_SVM => u32::from(self.flags) == KVM_STATE_NESTED_GIF_SET,
            _ => false,
        };
        unused && self.data.is_empty()
    }

    /// Whether to set this state on a vCPU with the nested state `host` (`None` if KVM has no such state),
    /// for which KVM accepts up to `max` bytes. Unused state needs no support from the host.
    fn is_for(&self, host: Option<&Self>, max: usize) -> Result<bool, Error> {
        match host {
            Some(host) if host.format == self.format && self.len() <= max => Ok(true),
            _ if self.is_unused() => Ok(false),
            _ => Err(Error::NestedState { format: self.format, len: self.len() }),
        }
    }
}

impl KvmVcpu {
    /// The nested state; `None` if KVM has no such state.
    pub(super) fn nested_state(&self) -> Result<Option<NestedState>, Error> {
        if self.lens.nested < PREFIX_LEN {
            return Ok(None);
        }
        let mut bytes = vec![0; self.lens.nested];
        ioctls::nested_state(&self.fd, &mut bytes).named("KVM_GET_NESTED_STATE")?;
        let state = NestedState::from_bytes(&bytes).ok_or(io::ErrorKind::InvalidData);
        state.map(Some).map_err(|kind| Error::Ioctl { name: "KVM_GET_NESTED_STATE", source: kind.into() })
    }

    pub(super) fn set_nested_state(&self, state: &NestedState) -> Result<(), Error> {
        if !state.is_for(self.nested_state()?.as_ref(), self.lens.nested)? {
            return Ok(());
        }
        ioctls::set_nested_state(&self.fd, &state.to_bytes()).named("KVM_SET_NESTED_STATE")
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::KVM_STATE_NESTED_GUEST_MODE;

    use super::*;

    /// Size with SVM: the structure and a 4 KiB VMCB.
    const SVM_LEN: usize = PREFIX_LEN + 0x1000;

    /// The state after a reset.
    fn svm() -> NestedState {
        NestedState { format: 1, flags: 0x100, header: [0; HEADER_LEN], data: Vec::new() }
    }

    fn vmx() -> NestedState {
        let mut header = [0; HEADER_LEN];
        // vmxon_pa and vmcs12_pa: none.
        header[..16].fill(0xff);
        NestedState { format: 0, flags: 0, header, data: Vec::new() }
    }

    fn in_guest() -> NestedState {
        NestedState { flags: 0x100 | KVM_STATE_NESTED_GUEST_MODE as u16, data: vec![7; 0x1000], ..svm() }
    }

    fn refusal(result: Result<bool, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn nested_state_is_kvms_structure_and_its_data() {
        let bytes = in_guest().to_bytes();
        // struct kvm_nested_state: flags, format and total size.
        assert_eq!(bytes[..8], [1, 1, 1, 0, 0x80, 0x10, 0, 0]);
        assert_eq!(bytes.len(), SVM_LEN);
        assert_eq!(NestedState::from_bytes(&bytes), Some(in_guest()));
    }

    #[test]
    fn nested_state_in_a_larger_buffer_ends_where_kvm_says() {
        let mut bytes = svm().to_bytes();
        bytes.resize(SVM_LEN, 0xaa);
        assert_eq!(NestedState::from_bytes(&bytes), Some(svm()));
    }

    #[test]
    fn nested_state_of_the_hosts_format_is_set() {
        assert!(in_guest().is_for(Some(&svm()), SVM_LEN).unwrap());
        // Even if the vCPU is running a nested guest.
        assert!(svm().is_for(Some(&in_guest()), SVM_LEN).unwrap());
        assert!(vmx().is_for(Some(&vmx()), SVM_LEN).unwrap());
    }

    #[test]
    fn nested_state_that_is_not_used_needs_no_host_for_it() {
        assert!(!svm().is_for(None, 0).unwrap());
        assert!(!svm().is_for(Some(&vmx()), SVM_LEN).unwrap());
        assert!(!vmx().is_for(None, 0).unwrap());
    }

    #[test]
    fn nested_state_that_is_used_is_refused_by_another_host() {
        let message = "the vCPU has SVM nested state (4224 bytes), which this host's KVM doesn't support: restore it \
            on a host with the same processor vendor and nested virtualization (`nested=1` of kvm_intel or kvm_amd)";
        assert_eq!(refusal(in_guest().is_for(None, 0)), message);
        assert_eq!(refusal(in_guest().is_for(Some(&vmx()), SVM_LEN)), message);
        let on = NestedState { header: [0; HEADER_LEN], ..vmx() };
        assert!(refusal(on.is_for(Some(&svm()), SVM_LEN)).contains("has VMX nested state"));
    }

    #[test]
    fn nested_state_longer_than_the_hosts_is_refused() {
        let mut long = in_guest();
        long.data.push(0);
        assert!(refusal(long.is_for(Some(&svm()), SVM_LEN)).contains("4225 bytes"));
    }

    #[test]
    fn nested_state_of_an_unknown_format_is_refused() {
        let other = NestedState { format: 2, ..svm() };
        assert!(refusal(other.is_for(Some(&svm()), SVM_LEN)).contains("has format 2 nested state"));
    }
}
