//! The kernel's own server of virtio rings (vhost; Linux, include/uapi/linux/vhost.h).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use vmm_memory::GuestRam;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{
    _IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl, ioctl_expr, ioctl_with_mut_ref, ioctl_with_ref,
};

/// A call that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct VhostError {
    /// Its name, such as `VHOST_SET_OWNER`, or `open`.
    pub call: &'static str,
    /// Why.
    pub source: io::Error,
}

/// A split ring of virtio that the kernel is to serve (virtio 1.2 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VhostRing {
    /// How many descriptors it has.
    pub size: u16,
    /// The guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Of the available ring.
    pub available: u64,
    /// Of the used ring.
    pub used: u64,
    /// The index in the available ring at which it goes on.
    pub next_available: u16,
}

/// A call with its argument's type.
struct Call<T> {
    name: &'static str,
    number: libc::c_ulong,
    argument: PhantomData<fn(T)>,
}

/// VHOST_VIRTIO, the letter of all of vhost's calls.
const LETTER: u32 = 0xaf;

const fn call<T>(name: &'static str, direction: u32, number: u32) -> Call<T> {
    let number = ioctl_expr(direction, LETTER, number, size_of::<T>() as u32);
    Call { name, number, argument: PhantomData }
}

const GET_FEATURES: Call<u64> = call("VHOST_GET_FEATURES", _IOC_READ, 0x00);
const SET_FEATURES: Call<u64> = call("VHOST_SET_FEATURES", _IOC_WRITE, 0x00);
const SET_OWNER: Call<()> = call("VHOST_SET_OWNER", _IOC_NONE, 0x01);
const SET_VRING_NUM: Call<RingNumber> = call("VHOST_SET_VRING_NUM", _IOC_WRITE, 0x10);
const SET_VRING_ADDR: Call<RingAddresses> = call("VHOST_SET_VRING_ADDR", _IOC_WRITE, 0x11);
const SET_VRING_BASE: Call<RingNumber> = call("VHOST_SET_VRING_BASE", _IOC_WRITE, 0x12);
const GET_VRING_BASE: Call<RingNumber> = call("VHOST_GET_VRING_BASE", _IOC_READ | _IOC_WRITE, 0x12);
const SET_VRING_KICK: Call<RingFile> = call("VHOST_SET_VRING_KICK", _IOC_WRITE, 0x20);
const SET_VRING_CALL: Call<RingFile> = call("VHOST_SET_VRING_CALL", _IOC_WRITE, 0x21);
const SET_VRING_ERR: Call<RingFile> = call("VHOST_SET_VRING_ERR", _IOC_WRITE, 0x22);
const NET_SET_BACKEND: Call<RingFile> = call("VHOST_NET_SET_BACKEND", _IOC_WRITE, 0x30);
const VSOCK_SET_GUEST_CID: Call<u64> = call("VHOST_VSOCK_SET_GUEST_CID", _IOC_WRITE, 0x60);
const VSOCK_SET_RUNNING: Call<libc::c_int> = call("VHOST_VSOCK_SET_RUNNING", _IOC_WRITE, 0x61);
/// Its number has the length of the table without its regions.
const SET_MEM_TABLE: Call<MemoryTable> = Call {
    name: "VHOST_SET_MEM_TABLE",
    number: ioctl_expr(_IOC_WRITE, LETTER, 0x03, 8),
    argument: PhantomData,
};

/// No descriptor (VHOST_FILE_UNBIND).
const NONE: i32 = -1;

/// struct vhost_vring_state.
#[repr(C)]
struct RingNumber {
    ring: u32,
    number: u32,
}

/// struct vhost_vring_file.
#[repr(C)]
struct RingFile {
    ring: u32,
    fd: i32,
}

/// struct vhost_vring_addr: addresses in the monitor.
#[repr(C)]
struct RingAddresses {
    ring: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// As many as the kernel takes unless its module was told otherwise (max_mem_regions).
const REGIONS: usize = 64;

/// struct vhost_memory.
#[repr(C)]
struct MemoryTable {
    count: u32,
    padding: u32,
    regions: [MemoryRegion; REGIONS],
}

/// struct vhost_memory_region.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MemoryRegion {
    gpa: u64,
    len: u64,
    hva: u64,
    flags: u64,
}

const _: () = assert!(size_of::<RingAddresses>() == 40 && size_of::<MemoryTable>() == 8 + REGIONS * 32);

/// An open /dev/vhost-net or /dev/vhost-vsock. The kernel reads and writes guest memory by what it was told here: only RAM, of
/// which a clone is kept until the kernel has another table or the descriptor is closed.
#[derive(Debug)]
pub struct Vhost {
    // Closed first: with that the kernel has stopped.
    file: File,
    ram: Option<GuestRam>,
}

impl Vhost {
    /// Opens it for this process (VHOST_SET_OWNER), which gives it a thread.
    ///
    /// # Errors
    /// The host has none, or it isn't open to the user.
    pub fn open(path: &'static str) -> Result<Self, VhostError> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.map_err(|source| VhostError { call: "open", source })?;
        // SAFETY: the descriptor is open, `file` is borrowed. VHOST_SET_OWNER takes no argument.
        check(&SET_OWNER, unsafe { ioctl(&file, SET_OWNER.number) })?;
        Ok(Self { file, ram: None })
    }

    /// What it can do, as bits of virtio's features.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn features(&self) -> Result<u64, VhostError> {
        let mut features = 0;
        self.get(&GET_FEATURES, &mut features)?;
        Ok(features)
    }

    /// Which of virtio's features the driver has accepted, and which the kernel is to heed.
    ///
    /// # Errors
    /// The kernel doesn't have one of them.
    pub fn set_features(&self, features: u64) -> Result<(), VhostError> {
        self.set(&SET_FEATURES, &features)
    }

    /// Says where the guest's memory is, unless the kernel knows that already. Nobody serves a ring now.
    ///
    /// # Errors
    /// There are more than 64 regions, or the kernel refuses.
    pub fn set_memory(&mut self, ram: &GuestRam) -> Result<(), VhostError> {
        // While its clone is kept no other memory of the process can be at the same addresses.
        let place = |ram: &GuestRam| ram.regions().map(|region| region.hva).collect::<Vec<_>>();
        if self.ram.as_ref().is_some_and(|known| place(known) == place(ram)) {
            return Ok(());
        }
        let mut table = MemoryTable { count: 0, padding: 0, regions: [MemoryRegion::default(); REGIONS] };
        for region in ram.regions() {
            let Some(place) = table.regions.get_mut(table.count as usize) else {
                let source = io::Error::from_raw_os_error(libc::E2BIG);
                return Err(VhostError { call: SET_MEM_TABLE.name, source });
            };
            *place = MemoryRegion { gpa: region.gpa, len: region.len, hva: region.hva, flags: 0 };
            table.count += 1;
        }
        self.set(&SET_MEM_TABLE, &table)?;
        self.ram = Some(ram.clone());
        Ok(())
    }

    /// The guest's memory is no more: the kernel forgets it, and so do we. Nobody serves a ring now.
    pub fn forget_memory(&mut self) {
        let none = MemoryTable { count: 0, padding: 0, regions: [MemoryRegion::default(); REGIONS] };
        // A kernel that doesn't take it knows the memory still.
        if self.set(&SET_MEM_TABLE, &none).is_ok() {
            self.ram = None;
        }
    }

    /// Says what a ring is, which nobody serves now: where it lies and where it goes on. `None` if a part of it isn't in one
    /// piece of the RAM of [`set_memory`](Self::set_memory).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_ring(&self, ring: u32, place: VhostRing) -> Result<Option<()>, VhostError> {
        let (Some(ram), size) = (&self.ram, u64::from(place.size)) else { return Ok(None) };
        // The kernel takes an address of the monitor and goes on from there: two regions of RAM that touch in the guest don't
        // here. Lengths: virtio 1.2 §2.7, with the event index.
        let hva = |gpa: u64, len: u64| {
            let region = ram.regions().find(|region| (region.gpa..region.gpa + region.len).contains(&gpa))?;
            let offset = gpa - region.gpa;
            (len <= region.len - offset).then(|| region.hva + offset)
        };
        let places = (
            hva(place.descriptors, 16 * size),
            hva(place.available, 6 + 2 * size),
            hva(place.used, 6 + 8 * size),
        );
        let (Some(descriptors), Some(available), Some(used)) = places else { return Ok(None) };
        self.set(&SET_VRING_NUM, &RingNumber { ring, number: place.size.into() })?;
        self.set(&SET_VRING_BASE, &RingNumber { ring, number: place.next_available.into() })?;
        let addresses = RingAddresses { ring, flags: 0, descriptors, used, available, log: 0 };
        self.set(&SET_VRING_ADDR, &addresses).map(Some)
    }

    /// The eventfds of a ring: the driver writes `kick`, the kernel `call`, and `error` if it can't go on. It reads none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_events(
        &self,
        ring: u32,
        kick: &EventFd,
        call: &EventFd,
        error: &EventFd,
    ) -> Result<(), VhostError> {
        self.set(&SET_VRING_CALL, &RingFile { ring, fd: call.as_raw_fd() })?;
        self.set(&SET_VRING_ERR, &RingFile { ring, fd: error.as_raw_fd() })?;
        self.set(&SET_VRING_KICK, &RingFile { ring, fd: kick.as_raw_fd() })
    }

    /// The driver's kicks reach the kernel no more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unset_kick(&self, ring: u32) -> Result<(), VhostError> {
        self.set(&SET_VRING_KICK, &RingFile { ring, fd: NONE })
    }

    /// Where the available ring goes on, once nobody serves it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn next_available(&self, ring: u32) -> Result<u16, VhostError> {
        let mut state = RingNumber { ring, number: 0 };
        self.get(&GET_VRING_BASE, &mut state)?;
        // A split ring's index is 16 bits.
        Ok(state.number as u16)
    }

    /// Of vhost-net: serves a ring with a TAP's queue; without one, has stopped when this returns.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_backend(&self, ring: u32, tap: Option<&File>) -> Result<(), VhostError> {
        self.set(&NET_SET_BACKEND, &RingFile { ring, fd: tap.map_or(NONE, AsRawFd::as_raw_fd) })
    }

    /// Of vhost-vsock: the guest's address, which no other guest of the host has.
    ///
    /// # Errors
    /// Another guest has it: `EADDRINUSE`.
    pub fn set_guest_cid(&self, cid: u64) -> Result<(), VhostError> {
        self.set(&VSOCK_SET_GUEST_CID, &cid)
    }

    /// Of vhost-vsock: serves the rings, or has stopped when this returns.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_running(&self, is_running: bool) -> Result<(), VhostError> {
        self.set(&VSOCK_SET_RUNNING, &is_running.into())
    }

    fn set<T>(&self, call: &Call<T>, argument: &T) -> Result<(), VhostError> {
        // SAFETY: the descriptor is open, `self` is borrowed. The call reads its own argument, which `T` is in length and
        // layout, all of it initialised; of a table of memory as many regions as it says, which are in it. What it makes the
        // kernel access later is what the callers above checked: RAM that lives as long as the descriptor, to which there are
        // no Rust references, and descriptors that the kernel keeps open by itself.
        check(call, unsafe { ioctl_with_ref(&self.file, call.number, argument) })
    }

    fn get<T>(&self, call: &Call<T>, argument: &mut T) -> Result<(), VhostError> {
        // SAFETY: the descriptor is open, `self` is borrowed. The call reads and writes its own argument, which `T` is in length
        // and layout, borrowed for us alone; every value of its fields is one.
        check(call, unsafe { ioctl_with_mut_ref(&self.file, call.number, argument) })
    }
}

fn check<T>(call: &Call<T>, returned: libc::c_int) -> Result<(), VhostError> {
    if returned < 0 {
        return Err(VhostError { call: call.name, source: io::Error::last_os_error() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a C program prints them that includes linux/vhost.h.
    #[test]
    fn numbers_of_calls_are_those_of_the_kernels_header() {
        assert_eq!([GET_FEATURES.number, SET_FEATURES.number], [0x8008_af00, 0x4008_af00]);
        assert_eq!([SET_OWNER.number, SET_MEM_TABLE.number], [0xaf01, 0x4008_af03]);
        assert_eq!([SET_VRING_NUM.number, SET_VRING_ADDR.number], [0x4008_af10, 0x4028_af11]);
        assert_eq!([SET_VRING_BASE.number, GET_VRING_BASE.number], [0x4008_af12, 0xc008_af12]);
        assert_eq!([SET_VRING_KICK.number, SET_VRING_CALL.number], [0x4008_af20, 0x4008_af21]);
        assert_eq!([SET_VRING_ERR.number, NET_SET_BACKEND.number], [0x4008_af22, 0x4008_af30]);
        assert_eq!([VSOCK_SET_GUEST_CID.number, VSOCK_SET_RUNNING.number], [0x4008_af60, 0x4004_af61]);
    }
}
