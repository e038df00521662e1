//! The kernel's virtio servers, vhost-net and vhost-vsock (Linux, include/uapi/linux/vhost.h).
//!
//! The ioctls are issued here rather than by the vhost crate. That crate brings in uuid and rand for a protocol
//! that isn't used, accepts a ring that spans two regions of RAM (the kernel would write past the first region
//! into whatever memory of the monitor comes next), and refuses a ring that ends with its region.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use vmm_bus::EventFd;
use vmm_memory::GuestRam;
use vmm_sandbox::Allow;
use vmm_sys_util::ioctl::{
    _IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl, ioctl_expr, ioctl_with_mut_ref, ioctl_with_ref,
};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct VhostError {
    /// Name of the call, such as `VHOST_SET_OWNER` or `open`.
    pub call: &'static str,
    /// Error from the kernel.
    pub source: io::Error,
}

/// A split virtqueue for the kernel to serve (virtio 1.2 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VhostRing {
    /// Number of descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// The index in the available ring at which to continue.
    pub next_available: u16,
}

/// An ioctl and the type of its argument.
struct Call<T> {
    name: &'static str,
    number: libc::c_ulong,
    argument: PhantomData<fn(T)>,
}

/// VHOST_VIRTIO, the ioctl letter of vhost.
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
/// The encoded length is that of the table without its regions.
const SET_MEM_TABLE: Call<MemoryTable> = Call {
    name: "VHOST_SET_MEM_TABLE",
    number: ioctl_expr(_IOC_WRITE, LETTER, 0x03, 8),
    argument: PhantomData,
};

/// The system calls of a [`Vhost`] that is open: rings are lent to it and taken back.
pub const VHOST_CALLS: &[Allow] = &[
    // For the kernel's errors and interrupts.
    Allow::call(libc::SYS_eventfd2),
    Allow::when(
        libc::SYS_ioctl,
        1,
        &[
            GET_FEATURES.number as u32,
            SET_FEATURES.number as u32,
            SET_MEM_TABLE.number as u32,
            SET_VRING_NUM.number as u32,
            SET_VRING_ADDR.number as u32,
            SET_VRING_BASE.number as u32,
            GET_VRING_BASE.number as u32,
            SET_VRING_KICK.number as u32,
            SET_VRING_CALL.number as u32,
            SET_VRING_ERR.number as u32,
            NET_SET_BACKEND.number as u32,
            VSOCK_SET_RUNNING.number as u32,
        ],
    ),
];

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

/// struct vhost_vring_addr. Addresses are the monitor's virtual addresses.
#[repr(C)]
struct RingAddresses {
    ring: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// Maximum number of regions, the default of the vhost module's max_mem_regions.
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

/// An open /dev/vhost-net or /dev/vhost-vsock. The kernel accesses guest memory only through the table set
/// here, which covers only RAM. A clone of the RAM is kept until the kernel has another table or the
/// descriptor is closed.
#[derive(Debug)]
pub struct Vhost {
    // Dropped first: closing it stops the kernel.
    file: File,
    ram: Option<GuestRam>,
}

impl Vhost {
    /// Opens the device and binds it to this process (VHOST_SET_OWNER), which starts its kernel thread.
    ///
    /// # Errors
    /// The device doesn't exist or isn't accessible.
    pub fn open(path: &'static str) -> Result<Self, VhostError> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.map_err(|source| VhostError { call: "open", source })?;
        // SAFETY: the descriptor is open, `file` is borrowed. VHOST_SET_OWNER takes no argument.
        check(&SET_OWNER, unsafe { ioctl(&file, SET_OWNER.number) })?;
        Ok(Self { file, ram: None })
    }

    /// The virtio feature bits that it supports.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn features(&self) -> Result<u64, VhostError> {
        let mut features = 0;
        self.get(&GET_FEATURES, &mut features)?;
        Ok(features)
    }

    /// Sets the feature bits that the driver has accepted, as far as the kernel implements them.
    ///
    /// # Errors
    /// The kernel doesn't support one of them.
    pub fn set_features(&self, features: u64) -> Result<(), VhostError> {
        self.set(&SET_FEATURES, &features)
    }

    /// Sets the guest's memory, unless the kernel has it already. No ring may be served meanwhile.
    ///
    /// # Errors
    /// There are more than 64 regions, or the ioctl fails.
    pub fn set_memory(&mut self, ram: &GuestRam) -> Result<(), VhostError> {
        // While the clone is kept, no other memory of the process can have the same addresses.
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

    /// Makes the kernel forget the guest's memory, and releases it. No ring may be served meanwhile.
    pub fn forget_memory(&mut self) {
        let none = MemoryTable { count: 0, padding: 0, regions: [MemoryRegion::default(); REGIONS] };
        // If the kernel refuses, it may still use the memory.
        if self.set(&SET_MEM_TABLE, &none).is_ok() {
            self.ram = None;
        }
    }

    /// Sets the addresses of a ring and where to continue. The ring must not be served meanwhile. `None` if a
    /// part of it isn't within one region of the RAM from [`set_memory`](Self::set_memory).
    ///
    /// # Errors
    /// An ioctl fails.
    pub fn set_ring(&self, ring: u32, place: VhostRing) -> Result<Option<()>, VhostError> {
        let (Some(ram), size) = (&self.ram, u64::from(place.size)) else { return Ok(None) };
        // The kernel accesses a part linearly from one virtual address, and regions that are adjacent in the
        // guest aren't adjacent here. Lengths are from virtio 1.2 §2.7, with the event index.
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

    /// Sets the eventfds of a ring: the driver signals `kick`, the kernel signals `call`, and `error` if it
    /// can't continue. The kernel doesn't read the latter two.
    ///
    /// # Errors
    /// An ioctl fails.
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

    /// Disconnects the driver's kicks from the kernel.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn unset_kick(&self, ring: u32) -> Result<(), VhostError> {
        self.set(&SET_VRING_KICK, &RingFile { ring, fd: NONE })
    }

    /// The index in the available ring at which to continue, once the ring is no longer served.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn next_available(&self, ring: u32) -> Result<u16, VhostError> {
        let mut state = RingNumber { ring, number: 0 };
        self.get(&GET_VRING_BASE, &mut state)?;
        // A split ring's index has 16 bits.
        Ok(state.number as u16)
    }

    /// vhost-net: serves a ring with a TAP's queue; `None` stops serving it before this returns.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn set_backend(&self, ring: u32, tap: Option<&File>) -> Result<(), VhostError> {
        self.set(&NET_SET_BACKEND, &RingFile { ring, fd: tap.map_or(NONE, AsRawFd::as_raw_fd) })
    }

    /// vhost-vsock: sets the guest's CID, which must be unique on the host.
    ///
    /// # Errors
    /// `EADDRINUSE` if another guest has it.
    pub fn set_guest_cid(&self, cid: u64) -> Result<(), VhostError> {
        self.set(&VSOCK_SET_GUEST_CID, &cid)
    }

    /// vhost-vsock: starts serving the rings, or stops before this returns.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn set_running(&self, is_running: bool) -> Result<(), VhostError> {
        self.set(&VSOCK_SET_RUNNING, &is_running.into())
    }

    fn set<T>(&self, call: &Call<T>, argument: &T) -> Result<(), VhostError> {
        // SAFETY: the descriptor is open, `self` is borrowed. The call reads its argument, whose size and
        // layout `T` has and which is initialised; of a memory table, it reads as many regions as the count
        // says, all of which are in it. What the kernel accesses later was checked by the callers above: RAM
        // that is kept as long as the descriptor, to which no Rust references exist, and descriptors that the
        // kernel itself keeps open.
        check(call, unsafe { ioctl_with_ref(&self.file, call.number, argument) })
    }

    fn get<T>(&self, call: &Call<T>, argument: &mut T) -> Result<(), VhostError> {
        // SAFETY: the descriptor is open, `self` is borrowed. The call reads and writes its argument, whose
        // size and layout `T` has; it is exclusively borrowed, and any value of its fields is valid.
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

    /// As printed by a C program that includes linux/vhost.h.
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
