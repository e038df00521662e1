//! The vCPU that starts a kernel.

use vmm_arch::boot::{self, EntryPoint};
use vmm_arch::cpuid::{self, Host, Place};
use vmm_arch::msr;
use vmm_arch::topology::Topology;

use crate::{Error, Kvm, KvmVcpu, VcpuState, Vm};

impl Vm {
    /// Creates the vCPU of a machine with one processor, ready to run a kernel at `entry`: CPUID for a machine of one core, the
    /// MSRs, FPU and local APIC as firmware leaves them, and the registers of the kernel's boot protocol.
    ///
    /// Call it after [`set_reserved_pages`](Self::set_reserved_pages) and
    /// [`create_irqchip_and_pit`](Self::create_irqchip_and_pit). `entry` comes from a boot plan (vmm-boot), which also puts into
    /// memory what the registers point to. For several processors, create each by [`create_vcpu`](Self::create_vcpu), with a
    /// CPUID by [`cpuid::policy`] and the rest by [`VcpuState::init_as_firmware`]; only the first one has an entry.
    ///
    /// # Errors
    /// The VM has a vCPU with id 0, or an ioctl failed.
    pub fn create_boot_vcpu(&self, kvm: &Kvm, entry: EntryPoint) -> Result<KvmVcpu, Error> {
        let place = Place { index: 0, topology: Topology::one_socket(1) };
        let vcpu = self.create_vcpu(place.apic_id())?;
        let mut state = vcpu.state(&[])?;
        let host = Host { tsc_deadline: kvm.has_tsc_deadline(), tsc_khz: state.tsc_khz, brand: None };
        state.cpuid = cpuid::policy(&kvm.supported_cpuid()?, place, host);
        state.init_as_firmware();
        state.regs = entry.regs();
        entry.apply_to(&mut state.sregs);
        vcpu.set_state(&state)?;
        Ok(vcpu)
    }
}

impl VcpuState {
    /// Sets what PC firmware sets on each processor: MSRs, FPU, and the local APIC, if there is one.
    ///
    /// It replaces the list of MSRs by those that firmware sets. The others, such as the TSC, keep the values that KVM gave them.
    pub fn init_as_firmware(&mut self) {
        self.msrs = msr::boot();
        boot::init_fpu(&mut self.xsave);
        if let Some(lapic) = &mut self.lapic {
            boot::wire_local_apic(lapic);
        }
    }
}
