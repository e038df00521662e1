//! Errors of the crate.

use std::io;

/// KVM is unavailable, or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` doesn't exist, or its module isn't loaded.
    #[error(
        "no /dev/kvm on this host: load kvm_intel or kvm_amd, or switch virtualization on in the firmware"
    )]
    NoDevice,
    /// The user has no permission to open `/dev/kvm`.
    #[error(
        "no permission to open /dev/kvm: join its group, if that is kvm (`ls -l /dev/kvm`), or else give it that group: \
         `sudo chgrp kvm /dev/kvm && sudo chmod g+rw /dev/kvm`"
    )]
    NoPermission,
    /// The kernel implements another API version. 12 has been the only one since 2007.
    #[error("/dev/kvm has API version {0}, expected 12")]
    ApiVersion(i32),
    /// The host's KVM lacks a capability that every VM of this workspace requires.
    #[error("this host's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// An ioctl or mmap failed.
    #[error("{name}: {source}")]
    Ioctl {
        /// Name of the ioctl in api.rst.
        name: &'static str,
        /// Error from the kernel.
        source: io::Error,
    },
    /// The guest's TSC has another frequency than the host's, which can't scale it.
    #[error(
        "the guest's TSC runs at {guest} kHz and this host's at {host} kHz, which its processor can't scale: restore it on a host with TSC \
         scaling, or with the same frequency"
    )]
    TscFrequency {
        /// The guest's, in kHz.
        guest: u32,
        /// The host's, in kHz.
        host: u32,
    },
    /// KVM_INTERRUPT was issued on a VM with in-kernel interrupt controllers.
    #[error(
        "KVM_INTERRUPT: vector {vector:#x} can't be injected into a VM with in-kernel interrupt controllers: raise an interrupt line \
         (KVM_IRQFD), or create the VM without them"
    )]
    InterruptControllerInKernel {
        /// The interrupt vector.
        vector: u8,
    },
    /// The source of an alias isn't within one region of RAM.
    #[error("{start:#x}..{end:#x} isn't made of whole pages in one region of RAM")]
    AliasSource {
        /// Start of the source range.
        start: u64,
        /// End of the source range, exclusive.
        end: u64,
    },
    /// There is no guest memory at this address.
    #[error("the guest has no memory at {gpa:#x}")]
    NoMemory {
        /// Guest-physical address.
        gpa: u64,
    },
    /// Dirty logging isn't enabled for the memory slot.
    #[error("the memory at {gpa:#x} has no dirty log: switch it on with `log_dirty_pages`")]
    NotLogged {
        /// Guest-physical address in the slot.
        gpa: u64,
    },
    /// A statistics file is malformed.
    #[error("KVM's statistics: {0}")]
    Statistics(&'static str),
    /// The XSAVE area is too short, or from a processor with more state than this one.
    #[error(
        "the XSAVE area has {len} bytes, this host's KVM takes 4096 to {max}: restore it on a host with the same features"
    )]
    XsaveLen {
        /// Its length in bytes.
        len: usize,
        /// Maximum length on this host in bytes.
        max: usize,
    },
    /// This host's KVM doesn't support the nested virtualization state.
    #[error(
        "the vCPU has {} nested state ({len} bytes), which this host's KVM doesn't support: restore it on a host \
         with the same processor vendor and nested virtualization (`nested=1` of kvm_intel or kvm_amd)", nested_format(*format)
    )]
    NestedState {
        /// KVM_STATE_NESTED_FORMAT_*.
        format: u16,
        /// Its length in bytes.
        len: usize,
    },
    /// The clock can't be advanced to the host's wall clock.
    #[error(
        "the clock can't be advanced: the host where it was saved or this one doesn't relate it to the wall clock \
         (before Linux 5.16, or with an unstable TSC); restore it frozen"
    )]
    NoWallClock,
    /// The VM has other vCPUs than the state.
    #[error("the state has {states} vCPUs, the VM has {vcpus}")]
    VcpuCount {
        /// vCPUs of the VM.
        vcpus: usize,
        /// vCPUs of the state.
        states: usize,
    },
    /// KVM refused an MSR.
    #[error("KVM_SET_MSRS: KVM refused MSR {index:#x}")]
    Msr {
        /// Index of the first MSR it refused.
        index: u32,
    },
}

/// Name of a KVM_STATE_NESTED_FORMAT_* value.
fn nested_format(format: u16) -> String {
    match format {
        0 => "VMX".to_owned(),
        1 => "SVM".to_owned(),
        other => format!("format {other}"),
    }
}

/// Adds the name of the failed ioctl to an error.
pub(crate) trait Named<T> {
    fn named(self, name: &'static str) -> Result<T, Error>;
}

impl<T> Named<T> for Result<T, kvm_ioctls::Error> {
    fn named(self, name: &'static str) -> Result<T, Error> {
        self.map_err(|e| Error::Ioctl { name, source: e.into() })
    }
}
