//! Lengths of vCPU state components that depend on the host.

use kvm_ioctls::{Cap, VmFd};

/// Length in 32-bit words of the area that every KVM supports (struct kvm_xsave): 4 KiB.
pub(super) const XSAVE_WORDS: usize = 1024;

/// Lengths of vCPU state components that depend on the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateLens {
    /// Length of the XSAVE area in 32-bit words, at least [`XSAVE_WORDS`].
    pub(super) xsave_words: usize,
    /// Maximum length of the nested state in bytes; 0 if KVM has none.
    pub(super) nested: usize,
}

impl StateLens {
    pub(crate) fn of(vm: &VmFd) -> Self {
        let bytes = |capability| usize::try_from(vm.check_extension_int(capability)).unwrap_or_default();
        // A KVM without Xsave2 has the minimum.
        let xsave_words = XSAVE_WORDS.max(bytes(Cap::Xsave2) / size_of::<u32>());
        Self { xsave_words, nested: bytes(Cap::NestedState) }
    }
}
