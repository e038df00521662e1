//! One virtual machine.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION gives the guest our memory.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_memory::{Access, FileMemory, GuestRam};
use vmm_sys_util::eventfd::EventFd;

use crate::error::Named;
use crate::{Error, KvmVcpu};

/// One virtual machine, and the memory that its guest can reach.
#[derive(Debug)]
pub struct Vm {
    pub(crate) fd: VmFd,
    /// Dropped after `fd`.
    slots: Mutex<Slots>,
}

/// The memory slots.
#[derive(Debug, Default)]
struct Slots {
    /// How many there are, which is the number of the next one.
    count: u32,
    memory: Held,
}

/// What the slots point to: it is mapped as long as one of these is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) ram: Vec<GuestRam>,
    files: Vec<FileMemory>,
}

/// Where a guest's write can signal an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAddress {
    /// A port.
    Port(u16),
    /// A guest-physical address without memory.
    Mmio(u64),
}

impl Vm {
    pub(crate) fn new(fd: VmFd) -> Self {
        Self { fd, slots: Mutex::default() }
    }

    /// Gives the guest `ram`, a memory slot for each of its regions. The VM and its vCPUs keep it mapped.
    ///
    /// # Errors
    /// A region overlaps a slot that is there already, or KVM is out of slots.
    pub fn add_memory(&self, ram: &GuestRam) -> Result<(), Error> {
        let mut slots = self.slots();
        // Before the slots: the guest must never see memory that nobody holds.
        slots.memory.ram.push(ram.clone());
        ram.regions().try_for_each(|region| self.add_slot(&mut slots, region.gpa, region.len, region.hva, 0))
    }

    /// Shows the guest the bytes of `ram` at `source` once more, at `gpa`, where it can only read them: a store there
    /// leaves KVM as one to an address without memory.
    ///
    /// # Errors
    /// `source` isn't whole pages inside one region of `ram`, or the addresses at `gpa` belong to a slot.
    pub fn add_read_only_alias(&self, ram: &GuestRam, source: Range<u64>, gpa: u64) -> Result<(), Error> {
        let inside = |gpa: u64, len: u64| source.start >= gpa && source.end <= gpa + len;
        let region = ram.regions().find(|region| inside(region.gpa, region.len));
        let region = region.ok_or(Error::AliasSource { start: source.start, end: source.end })?;
        let mut slots = self.slots();
        slots.memory.ram.push(ram.clone());
        let hva = region.hva + (source.start - region.gpa);
        self.add_slot(&mut slots, gpa, source.end - source.start, hva, KVM_MEM_READONLY)
    }

    /// Gives the guest `memory`, in a slot. If it may only read that, a store leaves KVM as one to an address without memory.
    /// The VM and its vCPUs keep it mapped.
    ///
    /// # Errors
    /// It overlaps a slot that is there already, or KVM is out of slots.
    pub fn add_file_memory(&self, memory: &FileMemory) -> Result<(), Error> {
        let flags = match memory.access() {
            Access::Read => KVM_MEM_READONLY,
            Access::ReadWrite => 0,
        };
        let mut slots = self.slots();
        slots.memory.files.push(memory.clone());
        let region = memory.region();
        self.add_slot(&mut slots, region.gpa, region.len, region.hva, flags)
    }

    /// `hva..hva + len` belongs to one of `slots.memory`.
    fn add_slot(&self, slots: &mut Slots, gpa: u64, len: u64, hva: u64, flags: u32) -> Result<(), Error> {
        let slot = kvm_userspace_memory_region {
            slot: slots.count,
            flags,
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: hva,
        };
        // SAFETY: hva..hva+len is a live mapping that belongs to one of `slots.memory`, by the callers, which are the
        // functions above. It stays mapped while the guest can run: `self.slots` and every vCPU hold clones of it. No Rust
        // reference into it exists, by the contracts of GuestRam and FileMemory.
        unsafe { self.fd.set_user_memory_region(slot) }.named("KVM_SET_USER_MEMORY_REGION")?;
        slots.count += 1;
        Ok(())
    }

    /// Lets every write to `line` raise the global system interrupt `gsi`, without a system call of ours
    /// (irqfd).
    ///
    /// # Errors
    /// There is no in-kernel interrupt controller, or the eventfd has a GSI already.
    pub fn connect_irq(&self, line: &EventFd, gsi: u32) -> Result<(), Error> {
        self.fd.register_irqfd(line, gsi).named("KVM_IRQFD")
    }

    /// Lets every write of the guest at `at` signal `event` instead of leaving the guest (ioeventfd); with `value`, only
    /// one of these 32 bits.
    ///
    /// # Errors
    /// The same address and value are connected already.
    pub fn connect_write(&self, event: &EventFd, at: WriteAddress, value: Option<u32>) -> Result<(), Error> {
        let at = match at {
            WriteAddress::Port(port) => IoEventAddress::Pio(port.into()),
            WriteAddress::Mmio(gpa) => IoEventAddress::Mmio(gpa),
        };
        match value {
            Some(value) => self.fd.register_ioevent(event, &at, value),
            None => self.fd.register_ioevent(event, &at, NoDatamatch),
        }
        .named("KVM_IOEVENTFD")
    }

    /// Creates the vCPU number `id`.
    ///
    /// # Errors
    /// The id is taken or above the host's limit.
    pub fn create_vcpu(&self, id: u32) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(id.into()).named("KVM_CREATE_VCPU")?;
        KvmVcpu::new(fd, self.slots().memory.clone())
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic while it is held")
    }
}
