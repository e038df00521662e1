//! One virtual machine.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION gives the guest our memory.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_memory::{Access, FileMemory, GuestRam};
use vmm_sys_util::eventfd::EventFd;

use crate::error::Named;
use crate::held::{Alias, Held};
use crate::x86_64::StateLens;
use crate::{DirtyPages, Error, KvmVcpu};

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
    /// Each at its number.
    list: Vec<Slot>,
    memory: Held,
}

/// One memory slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    gpa: u64,
    len: u64,
    /// `hva..hva + len` belongs to the slots' `memory`.
    hva: u64,
    /// KVM_MEM_*.
    flags: u32,
}

impl Slots {
    /// The slot that has memory at `gpa`, and its number.
    fn at(&mut self, gpa: u64) -> Result<(u32, &mut Slot), Error> {
        let has = |slot: &Slot| slot.gpa <= gpa && gpa - slot.gpa < slot.len;
        let number = self.list.iter().position(has).ok_or(Error::NoMemory { gpa })?;
        Ok((number as u32, &mut self.list[number]))
    }
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
        self.add_memory_for(ram, Access::ReadWrite)
    }

    /// As [`add_memory`](Self::add_memory), for memory that the guest may only read: a store leaves KVM as one to an address
    /// without memory, and the monitor decides what becomes of it.
    ///
    /// # Errors
    /// As for [`add_memory`](Self::add_memory); with [`Access::Read`] also where the host's KVM has no read-only slots.
    pub fn add_memory_for(&self, ram: &GuestRam, access: Access) -> Result<(), Error> {
        let mut slots = self.slots();
        // Before the slots: the guest must never see memory that nobody holds.
        slots.memory.ram.push(ram.clone());
        ram.regions().try_for_each(|region| {
            self.add_slot(&mut slots, region.gpa, region.len, region.hva, slot_flags(access))
        })
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
        let hva = region.hva + (source.start - region.gpa);
        slots.memory.aliases.push(Alias { ram: ram.clone(), source: source.clone(), gpa });
        self.add_slot(&mut slots, gpa, source.end - source.start, hva, KVM_MEM_READONLY)
    }

    /// Gives the guest `memory`, in a slot. If it may only read that, a store leaves KVM as one to an address without memory.
    /// The VM and its vCPUs keep it mapped.
    ///
    /// # Errors
    /// It overlaps a slot that is there already, or KVM is out of slots.
    pub fn add_file_memory(&self, memory: &FileMemory) -> Result<(), Error> {
        let flags = slot_flags(memory.access());
        let mut slots = self.slots();
        slots.memory.files.push(memory.clone());
        let region = memory.region();
        self.add_slot(&mut slots, region.gpa, region.len, region.hva, flags)
    }

    /// `hva..hva + len` belongs to one of `slots.memory`.
    fn add_slot(&self, slots: &mut Slots, gpa: u64, len: u64, hva: u64, flags: u32) -> Result<(), Error> {
        let slot = Slot { gpa, len, hva, flags };
        self.set_slot(slots.list.len() as u32, slot)?;
        slots.list.push(slot);
        Ok(())
    }

    /// `slot` is one of `self.slots`, or about to be.
    fn set_slot(&self, number: u32, slot: Slot) -> Result<(), Error> {
        let slot = kvm_userspace_memory_region {
            slot: number,
            flags: slot.flags,
            guest_phys_addr: slot.gpa,
            memory_size: slot.len,
            userspace_addr: slot.hva,
        };
        // SAFETY: hva..hva+len is a live mapping that belongs to one of the slots' `memory`, by the callers, which are the
        // functions here. It stays mapped while the guest can run: `self.slots` and every vCPU hold clones of it. No Rust
        // reference into it exists, by the contracts of GuestRam and FileMemory.
        unsafe { self.fd.set_user_memory_region(slot) }.named("KVM_SET_USER_MEMORY_REGION")
    }

    /// Whether KVM notes from now on which pages the guest writes, in the memory slot at `gpa` (KVM_MEM_LOG_DIRTY_PAGES). What
    /// was noted is lost when it is switched off.
    ///
    /// # Errors
    /// There is no memory at `gpa`, or it can only be read.
    pub fn log_dirty_pages(&self, gpa: u64, on: bool) -> Result<(), Error> {
        let mut slots = self.slots();
        let (number, slot) = slots.at(gpa)?;
        let logged = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        let changed = Slot { flags: slot.flags & !KVM_MEM_LOG_DIRTY_PAGES | logged, ..*slot };
        self.set_slot(number, changed)?;
        *slot = changed;
        Ok(())
    }

    /// The pages of the memory slot at `gpa` that the guest has written since the last call, or since
    /// [`log_dirty_pages`](Self::log_dirty_pages) (KVM api.rst KVM_GET_DIRTY_LOG). A page that the guest
    /// has only read may be among them, when KVM has made it writable; what the monitor writes isn't.
    ///
    /// # Errors
    /// There is no memory at `gpa`, or its dirty pages aren't logged.
    pub fn take_dirty_pages(&self, gpa: u64) -> Result<DirtyPages, Error> {
        let mut slots = self.slots();
        let (number, slot) = slots.at(gpa)?;
        if slot.flags & KVM_MEM_LOG_DIRTY_PAGES == 0 {
            return Err(Error::NotLogged { gpa });
        }
        let bitmap = self.fd.get_dirty_log(number, slot.len as usize).named("KVM_GET_DIRTY_LOG")?;
        Ok(DirtyPages::new(slot.gpa, bitmap))
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
        KvmVcpu::new(fd, self.slots().memory.clone(), StateLens::of(&self.fd))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic while it is held")
    }
}

/// KVM_MEM_* for what the guest may do.
fn slot_flags(access: Access) -> u32 {
    match access {
        Access::Read => KVM_MEM_READONLY,
        Access::ReadWrite => 0,
    }
}
