//! How long the parts of a vCPU's state are that aren't the same everywhere.

use kvm_ioctls::{Cap, VmFd};

/// Words of the part that every KVM has (struct kvm_xsave): 4 KiB.
pub(super) const XSAVE_WORDS: usize = 1024;

/// The lengths that depend on the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateLens {
    /// The XSAVE area's, in 32-bit words, at least [`XSAVE_WORDS`].
    pub(super) xsave_words: usize,
    /// The nested state's greatest, in bytes; 0 where KVM has none.
    pub(super) nested: usize,
}

impl StateLens {
    pub(crate) fn of(vm: &VmFd) -> Self {
        let bytes = |capability| usize::try_from(vm.check_extension_int(capability)).unwrap_or_default();
        // A KVM that doesn't know Xsave2 has the shortest.
        let xsave_words = XSAVE_WORDS.max(bytes(Cap::Xsave2) / size_of::<u32>());
        Self { xsave_words, nested: bytes(Cap::NestedState) }
    }
}
