//! One virtual machine.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION gives the guest our memory.

use std::sync::Mutex;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vmm_bus::IrqLine;
use vmm_memory::GuestRam;

use crate::error::Named;
use crate::{Error, KvmVcpu};

/// One virtual machine, and the memory that its guest can reach.
#[derive(Debug)]
pub struct Vm {
    pub(crate) fd: VmFd,
    /// What the slots point to; dropped after `fd`. A slot's number is its place over all of these.
    memory: Mutex<Vec<GuestRam>>,
}

impl Vm {
    pub(crate) fn new(fd: VmFd) -> Self {
        Self { fd, memory: Mutex::new(Vec::new()) }
    }

    /// Gives the guest `ram`, a memory slot for each of its regions. The VM and its vCPUs keep it mapped.
    ///
    /// # Errors
    /// A region overlaps a slot that is there already, or KVM is out of slots.
    pub fn add_memory(&self, ram: &GuestRam) -> Result<(), Error> {
        let mut memory = self.memory.lock().expect("no panic while it is held");
        let first = memory.iter().map(|r| r.regions().count()).sum::<usize>();
        // Before the slots: the guest must never see memory that nobody holds.
        memory.push(ram.clone());
        for (slot, region) in (first as u32..).zip(ram.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.gpa,
                memory_size: region.len,
                userspace_addr: region.hva,
            };
            // SAFETY: hva..hva+len is a live mapping that belongs to `ram`. It stays mapped while the guest
            // can run: `self.memory` and every vCPU hold clones of it. No Rust reference into it exists, by
            // the contract of GuestRam.
            unsafe { self.fd.set_user_memory_region(slot) }.named("KVM_SET_USER_MEMORY_REGION")?;
        }
        Ok(())
    }

    /// Lets every trigger of `line` raise the global system interrupt `gsi`, without a system call.
    ///
    /// # Errors
    /// There is no in-kernel interrupt controller, or the line has a GSI already.
    pub fn connect_irq(&self, line: &IrqLine, gsi: u32) -> Result<(), Error> {
        self.fd.register_irqfd(line.event(), gsi).named("KVM_IRQFD")
    }

    /// Creates the vCPU number `id`.
    ///
    /// # Errors
    /// The id is taken or above the host's limit.
    pub fn create_vcpu(&self, id: u32) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(id.into()).named("KVM_CREATE_VCPU")?;
        let memory = self.memory.lock().expect("no panic while it is held").clone();
        KvmVcpu::new(fd, memory)
    }
}
