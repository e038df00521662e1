//! The baseline: a minimal loop that only uses kvm-ioctls. None of our crates is used, not even for the setup.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION gives the guest our memory.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::failure::Failure;
use crate::workload::{RAM_LEN, Workload};

/// A VM before its first instruction or between two exits.
pub(crate) struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    /// Must be dropped after the VM, which has it mapped.
    _memory: GuestMemoryMmap<()>,
}

/// Numbers of exits and accesses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Returns of KVM_RUN.
    pub(crate) exits: u64,
    /// Accesses by the guest; a string instruction may make several in one exit.
    pub(crate) elements: u64,
}

impl Guest {
    pub(crate) fn new(workload: &Workload) -> Result<Self, Failure> {
        let vm = Kvm::new()?.create_vm()?;
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM_LEN)])?;
        memory.write_slice(workload.code, GuestAddress(0))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: RAM_LEN as u64,
            userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
        };
        // SAFETY: the range is the only mapping of `memory`, RAM_LEN bytes long. Guest owns it and drops it after the VM and the
        // vCPU, so it is mapped while the guest can run; on an early return no vCPU has run. No Rust reference into it exists.
        unsafe { vm.set_user_memory_region(region) }?;
        let vcpu = vm.create_vcpu(0)?;
        let (mut regs, mut sregs) = (vcpu.get_regs()?, vcpu.get_sregs()?);
        workload.apply_to(&mut regs, &mut sregs);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&regs)?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// Runs until the guest has made at least `elements` accesses.
    pub(crate) fn run(&mut self, elements: u64) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        while counts.elements < elements {
            counts.elements += match self.vcpu.run()? {
                // All accesses to ports have one byte.
                VcpuExit::IoOut(_, data) => data.len() as u64,
                VcpuExit::MmioWrite(_, _) => 1,
                exit => return Err(format!("unexpected exit {exit:?}").into()),
            };
            counts.exits += 1;
        }
        Ok(counts)
    }
}
