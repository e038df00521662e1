//! A virtual machine.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION maps host memory into the guest.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_msi, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_memory::{Access, FileMemory, GuestRam};

use crate::error::Named;
use crate::event_fd::as_event_fd;
use crate::guest_memory::{Alias, GuestMemory};
use crate::x86_64::StateLens;
use crate::{DirtyPages, Error, KvmVcpu};

/// A virtual machine, and the memory that its guest can reach.
#[derive(Debug)]
pub struct Vm {
    pub(crate) fd: VmFd,
    /// Dropped after `fd`.
    slots: Mutex<Slots>,
}

/// The memory slots.
#[derive(Debug, Default)]
struct Slots {
    /// The slots, indexed by slot number.
    list: Vec<Slot>,
    memory: GuestMemory,
}

/// A memory slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    gpa: u64,
    len: u64,
    /// `hva..hva + len` is mapped by `Slots::memory`.
    hva: u64,
    /// KVM_MEM_*.
    flags: u32,
}

impl Slots {
    /// Finds the slot that contains `gpa`, and its number.
    fn at(&mut self, gpa: u64) -> Result<(u32, &mut Slot), Error> {
        let has = |slot: &Slot| slot.gpa <= gpa && gpa - slot.gpa < slot.len;
        let number = self.list.iter().position(has).ok_or(Error::NoMemory { gpa })?;
        Ok((number as u32, &mut self.list[number]))
    }
}

/// An address for which guest writes can signal an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAddress {
    /// An I/O port.
    Port(u16),
    /// A guest-physical address without memory.
    Mmio(u64),
}

impl Vm {
    pub(crate) fn new(fd: VmFd) -> Self {
        Self { fd, slots: Mutex::default() }
    }

    /// Adds a memory slot for each region of `ram`. The VM and its vCPUs keep it mapped.
    ///
    /// Right after KVM_CREATE_IRQCHIP this takes several milliseconds, so add memory before: it waits until the kernel has freed what that
    /// replaced (SRCU).
    ///
    /// # Errors
    /// A region overlaps an existing slot, or KVM is out of slots.
    pub fn add_memory(&self, ram: &GuestRam) -> Result<(), Error> {
        self.add_memory_for(ram, Access::ReadWrite)
    }

    /// Like [`add_memory`](Self::add_memory), with the given guest access. A store to read-only memory exits
    /// like a store to an address without memory, for the monitor to handle.
    ///
    /// # Errors
    /// As for [`add_memory`](Self::add_memory); for [`Access::Read`] also if the host's KVM doesn't support
    /// read-only slots.
    pub fn add_memory_for(&self, ram: &GuestRam, access: Access) -> Result<(), Error> {
        let mut slots = self.slots();
        // Before the slots are set: the guest must never see memory that isn't kept mapped.
        slots.memory.ram.push(ram.clone());
        ram.regions().try_for_each(|region| {
            self.add_slot(&mut slots, region.gpa, region.len, region.hva, slot_flags(access))
        })
    }

    /// Maps the range `source` of `ram` a second time, read-only, at `gpa`. A store there exits like a store
    /// to an address without memory.
    ///
    /// # Errors
    /// `source` isn't made of whole pages inside one region of `ram`, or the range at `gpa` overlaps a slot.
    pub fn add_read_only_alias(&self, ram: &GuestRam, source: Range<u64>, gpa: u64) -> Result<(), Error> {
        let inside = |gpa: u64, len: u64| source.start >= gpa && source.end <= gpa + len;
        let region = ram.regions().find(|region| inside(region.gpa, region.len));
        let region = region.ok_or(Error::AliasSource { start: source.start, end: source.end })?;
        let mut slots = self.slots();
        let hva = region.hva + (source.start - region.gpa);
        slots.memory.aliases.push(Alias { ram: ram.clone(), source: source.clone(), gpa });
        self.add_slot(&mut slots, gpa, source.end - source.start, hva, KVM_MEM_READONLY)
    }

    /// Adds a slot for `memory`. If it is read-only, a store exits like a store to an address without memory.
    /// The VM and its vCPUs keep it mapped.
    ///
    /// # Errors
    /// It overlaps an existing slot, or KVM is out of slots.
    pub fn add_file_memory(&self, memory: &FileMemory) -> Result<(), Error> {
        let flags = slot_flags(memory.access());
        let mut slots = self.slots();
        slots.memory.files.push(memory.clone());
        let region = memory.region();
        self.add_slot(&mut slots, region.gpa, region.len, region.hva, flags)
    }

    /// `hva..hva + len` must be mapped by `slots.memory`.
    fn add_slot(&self, slots: &mut Slots, gpa: u64, len: u64, hva: u64, flags: u32) -> Result<(), Error> {
        let slot = Slot { gpa, len, hva, flags };
        self.set_slot(slots.list.len() as u32, slot)?;
        slots.list.push(slot);
        Ok(())
    }

    /// `slot` must be in `self.slots`, or about to be added.
    fn set_slot(&self, number: u32, slot: Slot) -> Result<(), Error> {
        let slot = kvm_userspace_memory_region {
            slot: number,
            flags: slot.flags,
            guest_phys_addr: slot.gpa,
            memory_size: slot.len,
            userspace_addr: slot.hva,
        };
        // SAFETY: hva..hva+len is a live mapping held by the slots' `memory`, as ensured by the callers, all
        // of which are in this file. It stays mapped while the guest can run, because `self.slots` and every
        // vCPU hold clones of it. No Rust reference into it exists, by the contracts of GuestRam and
        // FileMemory.
        unsafe { self.fd.set_user_memory_region(slot) }.named("KVM_SET_USER_MEMORY_REGION")
    }

    /// Enables or disables dirty logging for the memory slot at `gpa` (KVM_MEM_LOG_DIRTY_PAGES). Disabling it
    /// discards the log.
    ///
    /// # Errors
    /// There is no memory at `gpa`, or it is read-only.
    pub fn log_dirty_pages(&self, gpa: u64, on: bool) -> Result<(), Error> {
        let mut slots = self.slots();
        let (number, slot) = slots.at(gpa)?;
        let logged = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        let changed = Slot { flags: slot.flags & !KVM_MEM_LOG_DIRTY_PAGES | logged, ..*slot };
        self.set_slot(number, changed)?;
        *slot = changed;
        Ok(())
    }

    /// Returns and clears the dirty log of the memory slot at `gpa`: the pages that the guest has written
    /// since the last call, or since [`log_dirty_pages`](Self::log_dirty_pages) (KVM api.rst
    /// KVM_GET_DIRTY_LOG). It may include pages that were only read, if KVM made them writable. It doesn't
    /// include the monitor's own writes.
    ///
    /// # Errors
    /// There is no memory at `gpa`, or dirty logging isn't enabled for it.
    pub fn take_dirty_pages(&self, gpa: u64) -> Result<DirtyPages, Error> {
        let mut slots = self.slots();
        let (number, slot) = slots.at(gpa)?;
        if slot.flags & KVM_MEM_LOG_DIRTY_PAGES == 0 {
            return Err(Error::NotLogged { gpa });
        }
        let bitmap = self.fd.get_dirty_log(number, slot.len as usize).named("KVM_GET_DIRTY_LOG")?;
        Ok(DirtyPages::new(slot.gpa, bitmap))
    }

    /// Makes each write to the eventfd `line` raise the global system interrupt `gsi` in the kernel (irqfd), until its last
    /// descriptor is closed.
    ///
    /// # Errors
    /// There is no in-kernel interrupt controller, `line` isn't an eventfd, or it is already connected.
    pub fn connect_irq(&self, line: impl AsFd, gsi: u32) -> Result<(), Error> {
        self.fd.register_irqfd(&as_event_fd(line.as_fd()), gsi).named("KVM_IRQFD")
    }

    /// Undoes [`connect_irq`](Self::connect_irq) of the same arguments. Writes that come later wait in the eventfd.
    ///
    /// # Errors
    /// They aren't connected.
    pub fn disconnect_irq(&self, line: impl AsFd, gsi: u32) -> Result<(), Error> {
        self.fd.unregister_irqfd(&as_event_fd(line.as_fd()), gsi).named("KVM_IRQFD")
    }

    /// Makes guest writes to `at` signal the eventfd `event` instead of exiting (ioeventfd). With `value`, only
    /// 32-bit writes of that value do.
    ///
    /// # Errors
    /// `event` isn't an eventfd, or the same address and value are already connected.
    pub fn connect_write(&self, event: impl AsFd, at: WriteAddress, value: Option<u32>) -> Result<(), Error> {
        let event = as_event_fd(event.as_fd());
        let at = match at {
            WriteAddress::Port(port) => IoEventAddress::Pio(port.into()),
            WriteAddress::Mmio(gpa) => IoEventAddress::Mmio(gpa),
        };
        match value {
            Some(value) => self.fd.register_ioevent(&event, &at, value),
            None => self.fd.register_ioevent(&event, &at, NoDatamatch),
        }
        .named("KVM_IOEVENTFD")
    }

    /// Undoes [`connect_write`](Self::connect_write) of the same arguments.
    ///
    /// # Errors
    /// They aren't connected.
    pub fn disconnect_write(
        &self,
        event: impl AsFd,
        at: WriteAddress,
        value: Option<u32>,
    ) -> Result<(), Error> {
        let event = as_event_fd(event.as_fd());
        let at = match at {
            WriteAddress::Port(port) => IoEventAddress::Pio(port.into()),
            WriteAddress::Mmio(gpa) => IoEventAddress::Mmio(gpa),
        };
        match value {
            Some(value) => self.fd.unregister_ioevent(&event, &at, value),
            None => self.fd.unregister_ioevent(&event, &at, NoDatamatch),
        }
        .named("KVM_IOEVENTFD")
    }

    /// Sends a message-signalled interrupt: a write of `data` to `address`, which is a local APIC's. Whether one takes it isn't
    /// returned.
    ///
    /// # Errors
    /// There are no in-kernel interrupt controllers, or the message is none of an interrupt.
    pub fn signal_msi(&self, address: u64, data: u32) -> Result<(), Error> {
        let message = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        self.fd.signal_msi(message).map(drop).named("KVM_SIGNAL_MSI")
    }

    /// Creates the vCPU with this id.
    ///
    /// # Errors
    /// The id is taken or exceeds the host's limit.
    pub fn create_vcpu(&self, id: u32) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(id.into()).named("KVM_CREATE_VCPU")?;
        KvmVcpu::new(fd, self.slots().memory.clone(), StateLens::of(&self.fd))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic while it is held")
    }
}

/// KVM_MEM_* flags for this guest access.
fn slot_flags(access: Access) -> u32 {
    match access {
        Access::Read => KVM_MEM_READONLY,
        Access::ReadWrite => 0,
    }
}
