//! A vCPU's complete state.
//!
//! KVM dictates the order in which the parts are read and set: some modify others, and some are checked
//! against others (KVM api.rst; QEMU, target/i386/kvm/kvm.c; Firecracker, vstate/vcpu.rs). Only this file
//! knows the order.

use std::sync::{MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_REG_GUEST_SSP, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_x86_reg_kvm, kvm_xcrs,
};

use super::NestedState;
use crate::error::Named;
use crate::{Error, KvmVcpu, ioctls};

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE, which arms the local APIC timer. KVM compares a written value with the TSC, and ignores
/// the write unless the timer is in TSC-deadline mode.
const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_FEATURE_CONTROL.
const FEATURE_CONTROL: u32 = 0x3a;
/// The first and last VMX capability MSRs: IA32_VMX_BASIC and IA32_VMX_VMFUNC.
const VMX_BASIC: u32 = 0x480;
const VMX_VMFUNC: u32 = 0x491;

/// The complete state of a vCPU, excluding memory: at start, or while paused.
///
/// Starting, copying and snapshotting are the same three steps: get the state, change it, set it.
/// [`KvmVcpu::state`] and [`KvmVcpu::set_state`] handle the order of the parts.
#[derive(Clone, Debug, PartialEq)]
pub struct VcpuState {
    /// The guest's CPUID.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// TSC frequency in kHz; `None` if KVM doesn't know it.
    pub tsc_khz: Option<u32>,
    /// Whether the vCPU is runnable, halted, or waits for INIT or SIPI.
    pub mp_state: kvm_mp_state,
    /// General-purpose registers.
    pub regs: kvm_regs,
    /// Segments, descriptor tables, control registers, APIC base, and the external interrupt being delivered.
    pub sregs: kvm_sregs,
    /// The XSAVE area in 32-bit words: at least 1024, more with AMX.
    pub xsave: Vec<u32>,
    /// XCR0.
    pub xcrs: kvm_xcrs,
    /// DR0 to DR3, DR6 and DR7.
    pub debug_regs: kvm_debugregs,
    /// The local APIC; `None` without in-kernel interrupt controllers.
    pub lapic: Option<kvm_lapic_state>,
    /// MSRs. MSRs that aren't listed keep their values when the state is set.
    pub msrs: Vec<kvm_msr_entry>,
    /// SSP, the shadow stack pointer, which isn't an MSR; `None` if KVM doesn't provide it (before Linux
    /// 6.18, or without CET).
    pub shadow_stack: Option<u64>,
    /// Nested virtualization state; `None` if KVM has none.
    pub nested: Option<NestedState>,
    /// What KVM adds to the host's TSC; `None` before Linux 5.16. [`KvmVcpu::set_state`] sets the TSC through
    /// its MSR instead, so that it continues from where it stopped. [`Vm::restore`](crate::Vm::restore) keeps
    /// the differences between vCPUs, most often none.
    pub tsc_offset: Option<u64>,
    /// Exceptions, NMIs and interrupts that are pending or being delivered.
    pub events: kvm_vcpu_events,
}

/// MSRs in groups that are set in this order.
#[derive(Debug, Default, PartialEq)]
struct MsrGroups {
    /// IA32_FEATURE_CONTROL, which enables VMX, and VMX's capability MSRs, which KVM refuses to change once
    /// the vCPU is in VMX operation (Linux, arch/x86/kvm/vmx/vmx.c, vmx_set_vmx_msr).
    before_nested: Vec<kvm_msr_entry>,
    most: Vec<kvm_msr_entry>,
    /// [`TSC_DEADLINE`], after the TSC, which is in no group.
    deadline: Vec<kvm_msr_entry>,
}

impl MsrGroups {
    fn of(msrs: &[kvm_msr_entry]) -> Self {
        let mut groups = Self::default();
        for msr in msrs {
            let group = match msr.index {
                FEATURE_CONTROL | VMX_BASIC..=VMX_VMFUNC => &mut groups.before_nested,
                TSC_DEADLINE => &mut groups.deadline,
                TSC => continue,
                _ => &mut groups.most,
            };
            group.push(*msr);
        }
        groups
    }
}

impl VcpuState {
    /// The TSC, if it is among the MSRs.
    pub(super) fn tsc(&self) -> Option<u64> {
        self.msrs.iter().find(|msr| msr.index == TSC).map(|msr| msr.data)
    }
}

impl KvmVcpu {
    /// Reads the complete state. Call it before the vCPU first runs, or while it is paused with its last
    /// access completed ([`complete_access`](Self::complete_access)).
    ///
    /// `msr_indices` are the MSRs to read; [`Kvm::msr_indices`](crate::Kvm::msr_indices) returns all of them.
    /// MSRs that this vCPU lacks are skipped.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn state(&self, msr_indices: &[u32]) -> Result<VcpuState, Error> {
        // First: it processes a pending INIT or SIPI, which changes registers and the local APIC.
        let mp_state = self.fd.get_mp_state().named("KVM_GET_MP_STATE")?;
        let regs = self.regs()?;
        let sregs = self.sregs()?;
        let xsave = self.xsave()?;
        let xcrs = self.fd.get_xcrs().named("KVM_GET_XCRS")?;
        let debug_regs = self.fd.get_debug_regs().named("KVM_GET_DEBUGREGS")?;
        // Before the local APIC: the timer keeps running, and when it expires, KVM clears this MSR and sets
        // an IRR bit, which must not be missed. A deadline that has passed and an IRR bit that is already set
        // yield one interrupt.
        let (timer, others): (Vec<_>, Vec<_>) = msr_indices.iter().partition(|&&index| index == TSC_DEADLINE);
        let deadline = self.msrs(&timer)?;
        let lapic = match self.fd.get_lapic() {
            // There are no in-kernel interrupt controllers.
            Err(error) if error.errno() == libc::EINVAL => None,
            other => Some(other.named("KVM_GET_LAPIC")?),
        };
        let mut msrs = self.msrs(&others)?;
        msrs.extend(deadline);
        Ok(VcpuState {
            cpuid: self.cpuid()?,
            tsc_khz: self.tsc_khz(),
            mp_state,
            regs,
            sregs,
            xsave,
            xcrs,
            debug_regs,
            lapic,
            msrs,
            tsc_offset: self.tsc_offset(),
            shadow_stack: self.shadow_stack(),
            nested: self.nested_state()?,
            // Last: the calls above may change what is pending.
            events: self.fd.get_vcpu_events().named("KVM_GET_VCPU_EVENTS")?,
        })
    }

    /// Sets the complete state. The vCPU must not have run yet, or must have the same CPUID.
    ///
    /// If the TSC is among the MSRs, it continues from that value. Omit it to start a machine: KVM gives the
    /// vCPUs of a new VM equal TSCs, and setting them one by one would make them differ. To set the states of
    /// several vCPUs that ran, use [`Vm::restore`](crate::Vm::restore).
    ///
    /// # Errors
    /// An ioctl failed, or this host's KVM can't represent the state: [`Error::Msr`], [`Error::XsaveLen`],
    /// [`Error::NestedState`]. The vCPU's state is then undefined.
    pub fn set_state(&self, state: &VcpuState) -> Result<(), Error> {
        self.set_all_but_timer(state)?;
        if let Some(tsc) = state.tsc() {
            self.set_tsc(tsc)?;
            self.continue_tsc_at(tsc)?;
        }
        self.set_timer(state)
    }

    /// Sets the state except for the TSC and what depends on it, which [`set_timer`](Self::set_timer) sets.
    pub(super) fn set_all_but_timer(&self, state: &VcpuState) -> Result<(), Error> {
        // First: KVM checks the rest against it; MSRs since Linux 6.13.
        let is_given = self.given_cpuid().as_ref() == Some(&state.cpuid);
        if !is_given {
            self.set_cpuid(&state.cpuid)?;
        }
        if let Some(guest) = state.tsc_khz
            && let host = self.tsc_khz()
            && host != state.tsc_khz
        {
            // Before the TSC. A host without TSC scaling refuses a frequency that is more than 250 ppm above its own.
            let refused = |_| Error::TscFrequency { guest, host: host.unwrap_or_default() };
            self.fd.set_tsc_khz(guest).map_err(refused)?;
        }
        self.fd.set_mp_state(state.mp_state).named("KVM_SET_MP_STATE")?;
        // Clears pending exceptions; setting the events restores them.
        self.set_regs(&state.regs)?;
        // Before the local APIC, because it includes the APIC's base address and mode.
        self.set_sregs(&state.sregs)?;
        self.set_xsave(&state.xsave)?;
        // A host without XSAVE has none, and KVM refuses an empty list there.
        if state.xcrs.nr_xcrs > 0 {
            self.fd.set_xcrs(&state.xcrs).named("KVM_SET_XCRS")?;
        }
        self.fd.set_debug_regs(&state.debug_regs).named("KVM_SET_DEBUGREGS")?;
        if let Some(lapic) = &state.lapic {
            self.fd.set_lapic(lapic).named("KVM_SET_LAPIC")?;
        }
        let msrs = MsrGroups::of(&state.msrs);
        self.set_msrs_or_same(&msrs.before_nested)?;
        // After EFER and CR4, which must permit it, and after the nested guest's registers, which KVM holds
        // as the vCPU's.
        if let Some(nested) = &state.nested {
            self.set_nested_state(nested)?;
        }
        // After the nested state, which sets some of them.
        self.set_msrs_or_same(&msrs.most)?;
        if let Some(pointer) = state.shadow_stack {
            unless_unused(pointer, self.set_shadow_stack(pointer))?;
        }
        Ok(())
    }

    /// Sets what depends on the TSC, and the pending events.
    ///
    /// A deadline that has passed meanwhile expires at once. A saved 0 needs nothing: [`state`](Self::state) reads the deadline
    /// before the local APIC, which then has the interrupt of one that expired in between.
    pub(super) fn set_timer(&self, state: &VcpuState) -> Result<(), Error> {
        // After the TSC, and after the local APIC, which has the timer's mode.
        self.set_msrs_or_same(&MsrGroups::of(&state.msrs).deadline)?;
        // Last: other ioctls change what is pending.
        self.fd.set_vcpu_events(&state.events).named("KVM_SET_VCPU_EVENTS")
    }

    /// Sets the TSC. KVM takes a value within a second of what it expects as an attempt to synchronize the vCPUs' TSCs, and gives
    /// this one the offset of the others (Linux, arch/x86/kvm/x86.c, kvm_synchronize_tsc).
    pub(super) fn set_tsc(&self, tsc: u64) -> Result<(), Error> {
        self.set_msrs_or_same(&[kvm_msr_entry { index: TSC, data: tsc, ..Default::default() }])
    }

    /// Corrects the TSC to continue at `tsc` after its MSR has been written.
    ///
    /// Synchronized by KVM, it would have continued meanwhile, or gone backwards. Returns the vCPU's offset then. Before Linux 5.16
    /// the offset can't be set: the TSC is left as it is, and there is none.
    pub(super) fn continue_tsc_at(&self, tsc: u64) -> Result<Option<u64>, Error> {
        let (Some(offset), [now]) = (self.tsc_offset(), &self.msrs(&[TSC])?[..]) else { return Ok(None) };
        let offset = offset.wrapping_add(tsc.wrapping_sub(now.data));
        self.set_tsc_offset(offset).map(|()| Some(offset))
    }

    fn shadow_stack(&self) -> Option<u64> {
        let mut pointer = [0; 8];
        self.fd.get_one_reg(kvm_x86_reg_kvm(KVM_REG_GUEST_SSP), &mut pointer).ok()?;
        Some(u64::from_ne_bytes(pointer))
    }

    fn set_shadow_stack(&self, pointer: u64) -> Result<(), Error> {
        let set = self.fd.set_one_reg(kvm_x86_reg_kvm(KVM_REG_GUEST_SSP), &pointer.to_ne_bytes());
        set.map(drop).named("KVM_SET_ONE_REG of the shadow stack's pointer")
    }

    fn given_cpuid(&self) -> MutexGuard<'_, Option<Vec<kvm_cpuid_entry2>>> {
        self.given_cpuid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CPUID that was set. KVM is asked only for that of a vCPU without one: what it returns has also what the guest has enabled, and
    /// a software KVM returns the processor's own.
    fn cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        if let Some(given) = &*self.given_cpuid() {
            return Ok(given.clone());
        }
        let cpuid = self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).named("KVM_GET_CPUID2")?;
        // Some kernels return the length of the buffer instead.
        let entries = cpuid.as_slice();
        let len = entries
            .iter()
            .rposition(|entry| *entry != kvm_cpuid_entry2::default())
            .map_or(0, |last| last + 1);
        Ok(entries[..len].to_vec())
    }

    /// What KVM adds to the host's TSC for the guest's (KVM_VCPU_TSC_OFFSET); `None` before Linux 5.16.
    pub fn tsc_offset(&self) -> Option<u64> {
        ioctls::tsc_offset(&self.fd).ok()
    }

    /// Sets what KVM adds to the host's TSC. With equal offsets, all vCPUs of a VM have equal TSCs.
    ///
    /// # Errors
    /// The kernel is older than Linux 5.16.
    pub fn set_tsc_offset(&self, offset: u64) -> Result<(), Error> {
        ioctls::set_tsc_offset(&self.fd, offset).named("KVM_SET_DEVICE_ATTR")
    }
}

/// Ignores an error for a zero pointer: a host without shadow stacks may refuse even that.
fn unless_unused(pointer: u64, set: Result<(), Error>) -> Result<(), Error> {
    if pointer == 0 { Ok(()) } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_stack_that_the_host_refuses_must_be_unused() {
        let refused = || Err(kvm_ioctls::Error::new(libc::EINVAL)).named("KVM_SET_ONE_REG");
        assert!(unless_unused(0, refused()).is_ok());
        assert!(unless_unused(0x7fff_f000, Ok(())).is_ok());
        let error = unless_unused(0x7fff_f000, refused()).unwrap_err().to_string();
        assert_eq!(error, "KVM_SET_ONE_REG: Invalid argument (os error 22)");
    }

    #[test]
    fn msrs_are_set_around_the_nested_state_and_the_deadline_last() {
        let msr = |index| kvm_msr_entry { index, data: 1, ..Default::default() };
        let msrs = [TSC_DEADLINE, TSC, 0x3a, 0x47f, 0x480, 0x491, 0x492, 0xc000_0080].map(msr);
        let groups = MsrGroups {
            before_nested: [0x3a, 0x480, 0x491].map(msr).to_vec(),
            most: [0x47f, 0x492, 0xc000_0080].map(msr).to_vec(),
            deadline: vec![msr(TSC_DEADLINE)],
        };
        assert_eq!(MsrGroups::of(&msrs), groups);
    }
}
