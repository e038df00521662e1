//! What goes wrong between us and the kernel.

use std::io;

/// A request that KVM refused, or a host without it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no /dev/kvm.
    #[error(
        "no /dev/kvm on this host: load kvm_intel or kvm_amd, or switch virtualization on in the firmware"
    )]
    NoDevice,
    /// /dev/kvm is there but not for this user.
    #[error(
        "no permission to open /dev/kvm: join its group, if that is kvm (`ls -l /dev/kvm`), or else give it that group: \
         `sudo chgrp kvm /dev/kvm && sudo chmod g+rw /dev/kvm`"
    )]
    NoPermission,
    /// The kernel speaks another version of the interface; 12 is the only one since 2007.
    #[error("/dev/kvm speaks API version {0}, expected 12")]
    ApiVersion(i32),
    /// The host's KVM lacks something that every virtual machine here needs.
    #[error("this host's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// An ioctl or a mapping failed.
    #[error("{name}: {source}")]
    Ioctl {
        /// Its name in api.rst.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// KVM_INTERRUPT on a VM whose interrupt controllers are KVM's.
    #[error(
        "KVM_INTERRUPT: vector {vector:#x} can't be injected into a VM with in-kernel interrupt controllers: raise an interrupt line \
         (KVM_IRQFD), or create the VM without them"
    )]
    InterruptControllerInKernel {
        /// The interrupt.
        vector: u8,
    },
    /// An alias of something that isn't one piece of RAM.
    #[error("{start:#x}..{end:#x} doesn't lie in one region of the RAM")]
    AliasSource {
        /// First address.
        start: u64,
        /// First address behind it.
        end: u64,
    },
    /// An address without memory.
    #[error("the guest has no memory at {gpa:#x}")]
    NoMemory {
        /// The address.
        gpa: u64,
    },
    /// The dirty pages of a memory slot that keeps no log.
    #[error("the memory at {gpa:#x} has no dirty log: switch it on with `log_dirty_pages`")]
    NotLogged {
        /// An address in the slot.
        gpa: u64,
    },
    /// A statistics file that contradicts itself.
    #[error("KVM's statistics: {0}")]
    Statistics(&'static str),
    /// An XSAVE area that is cut short, or of a processor with more state than this one.
    #[error(
        "the XSAVE area has {len} bytes, this host's KVM takes 4096 to {max}: restore it on a host with the same features"
    )]
    XsaveLen {
        /// Its length.
        len: usize,
        /// What there is room for.
        max: usize,
    },
    /// State of nested virtualization that this host's KVM can't take.
    #[error(
        "the vCPU's guest uses {} for guests of its own ({len} bytes of state), which this host's KVM doesn't offer: restore it on a host \
         with the same processor vendor and nested virtualization (`nested=1` of kvm_intel or kvm_amd)", nested_format(*format)
    )]
    NestedState {
        /// KVM_STATE_NESTED_FORMAT_*.
        format: u16,
        /// Its length.
        len: usize,
    },
    /// KVM took only the first `done` of the MSRs it was given.
    #[error("KVM_SET_MSRS: KVM refused MSR {index:#x}")]
    Msr {
        /// The first one that it refused.
        index: u32,
    },
}

/// The name of a KVM_STATE_NESTED_FORMAT_*.
fn nested_format(format: u16) -> String {
    match format {
        0 => "VMX".to_owned(),
        1 => "SVM".to_owned(),
        other => format!("format {other}"),
    }
}

/// Names the ioctl of a failed result.
pub(crate) trait Named<T> {
    fn named(self, name: &'static str) -> Result<T, Error>;
}

impl<T> Named<T> for Result<T, kvm_ioctls::Error> {
    fn named(self, name: &'static str) -> Result<T, Error> {
        self.map_err(|e| Error::Ioctl { name, source: e.into() })
    }
}
