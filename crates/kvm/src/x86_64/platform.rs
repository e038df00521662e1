//! In-kernel PC hardware.

use std::collections::BTreeSet;

use kvm_bindings::{
    KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_X2APIC_API, KVM_PIT_SPEAKER_DUMMY,
    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS, kvm_enable_cap, kvm_pit_config,
};
use vmm_arch::{layout, msr};

use crate::error::Named;
use crate::{Error, Kvm, KvmVcpu, Vm};

/// Use 32-bit ids in all KVM interfaces, and don't treat 255 as broadcast.
const X2APIC_FLAGS: u32 = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;

/// Guest-physical addresses of the four pages that KVM reserves, each page-aligned and below 4 GiB. The default is
/// [`layout`]'s, inside the 32-bit MMIO gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedPages {
    /// One page for an identity map (KVM api.rst KVM_SET_IDENTITY_MAP_ADDR).
    pub identity_map: u64,
    /// Three pages for a task state segment (KVM api.rst KVM_SET_TSS_ADDR).
    pub tss: u64,
}

impl Default for ReservedPages {
    fn default() -> Self {
        Self { identity_map: layout::KVM_IDENTITY_MAP, tss: layout::KVM_TSS }
    }
}

impl Kvm {
    /// The MSRs that make up a vCPU's state: those that KVM lists, and those that it may support without
    /// listing them. Without duplicates.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn msr_indices(&self) -> Result<Vec<u32>, Error> {
        let listed = self.fd.get_msr_index_list().named("KVM_GET_MSR_INDEX_LIST")?;
        let all: BTreeSet<u32> = listed.as_slice().iter().copied().chain(msr::beyond_list()).collect();
        Ok(all.into_iter().collect())
    }

    /// Whether the local APIC timer has a TSC-deadline mode, which KVM_GET_SUPPORTED_CPUID doesn't report.
    pub fn has_tsc_deadline(&self) -> bool {
        self.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0
    }

    /// Whether the host supports [`Vm::enable_x2apic_ids`].
    pub fn has_x2apic_ids(&self) -> bool {
        self.capability(KVM_CAP_X2APIC_API) & X2APIC_FLAGS as i32 == X2APIC_FLAGS as i32
    }
}

impl Vm {
    /// Sets where the pages are that KVM reserves. Intel processors without unrestricted guest mode need them to run real
    /// mode. Call it before creating vCPUs.
    ///
    /// # Errors
    /// An ioctl failed; they do if a vCPU exists.
    pub fn set_reserved_pages(&self, pages: ReservedPages) -> Result<(), Error> {
        self.fd.set_identity_map_address(pages.identity_map).named("KVM_SET_IDENTITY_MAP_ADDR")?;
        self.fd.set_tss_address(pages.tss as usize).named("KVM_SET_TSS_ADDR")
    }

    /// Creates two 8259s, an IO-APIC, an 8254 timer, and a local APIC for each future vCPU.
    ///
    /// The timer includes speaker port 0x61, which kernels use for calibration.
    ///
    /// # Errors
    /// An ioctl failed; they do if a vCPU exists.
    pub fn create_irqchip_and_pit(&self) -> Result<(), Error> {
        self.fd.create_irq_chip().named("KVM_CREATE_IRQCHIP")?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        self.fd.create_pit2(pit).named("KVM_CREATE_PIT2")
    }

    /// Allows vCPU ids, which are their APIC ids, of more than 8 bits; 255 becomes an ordinary id (KVM
    /// api.rst, KVM_CAP_X2APIC_API). Call it before creating vCPUs.
    ///
    /// # Errors
    /// The host lacks the capability, or one of its two flags.
    pub fn enable_x2apic_ids(&self) -> Result<(), Error> {
        let args = [X2APIC_FLAGS.into(), 0, 0, 0];
        let capability = kvm_enable_cap { cap: KVM_CAP_X2APIC_API, args, ..Default::default() };
        self.fd.enable_cap(&capability).named("KVM_ENABLE_CAP of KVM_CAP_X2APIC_API")
    }
}

impl KvmVcpu {
    /// The frequency of the guest's TSC in kHz (KVM api.rst, KVM_GET_TSC_KHZ); `None` if the host doesn't
    /// know it, for example because its own TSC isn't stable.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz > 0)
    }
}
