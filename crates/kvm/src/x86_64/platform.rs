//! The in-kernel parts of a PC.

use kvm_bindings::{
    KVM_CAP_EXT_CPUID, KVM_CAP_IRQCHIP, KVM_CAP_PIT2, KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_SET_TSS_ADDR,
    KVM_CAP_TSC_DEADLINE_TIMER, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config,
};

use crate::error::Named;
use crate::system::capability;
use crate::{Capability, Error, Kvm, Vm};

/// What every virtual PC needs.
pub(crate) const REQUIRED: [Capability; 5] = [
    capability!(KVM_CAP_IRQCHIP),
    capability!(KVM_CAP_PIT2),
    capability!(KVM_CAP_SET_TSS_ADDR),
    capability!(KVM_CAP_SET_IDENTITY_MAP_ADDR),
    capability!(KVM_CAP_EXT_CPUID),
];

impl Kvm {
    /// Whether the local APIC's timer has a TSC-deadline mode, which KVM_GET_SUPPORTED_CPUID leaves out.
    pub fn has_tsc_deadline(&self) -> bool {
        self.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0
    }
}

impl Vm {
    /// Tells KVM where in guest-physical memory it may keep four pages of its own: one with an identity map
    /// and three with a task state segment, which Intel processors without unrestricted guests need to run
    /// real mode. Call it before any vCPU exists.
    ///
    /// # Errors
    /// The ioctls failed, as they do once a vCPU exists.
    pub fn set_reserved_pages(&self, identity_map: u64, tss: u64) -> Result<(), Error> {
        self.fd.set_identity_map_address(identity_map).named("KVM_SET_IDENTITY_MAP_ADDR")?;
        self.fd.set_tss_address(tss as usize).named("KVM_SET_TSS_ADDR")
    }

    /// Creates two 8259s, an IO-APIC, an 8254 timer, and a local APIC for each vCPU to come.
    ///
    /// The timer's speaker port 0x61 answers too: kernels calibrate with it.
    ///
    /// # Errors
    /// The ioctls failed, as they do once a vCPU exists.
    pub fn create_irqchip_and_pit(&self) -> Result<(), Error> {
        self.fd.create_irq_chip().named("KVM_CREATE_IRQCHIP")?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        self.fd.create_pit2(pit).named("KVM_CREATE_PIT2")
    }
}
