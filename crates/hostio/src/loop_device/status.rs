//! A loop device's status (LOOP_GET_STATUS64; Linux, include/uapi/linux/loop.h).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;

/// LOOP_GET_STATUS64.
const GET_STATUS: libc::c_ulong = 0x4c05;

/// struct loop_info64.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What backs a loop device. Numbers are as in stat(2): the kernel queries the file system in the same way
/// (drivers/block/loop.c, `loop_get_status`), and encodes device numbers like `dev_t` of x86_64 and glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Device number of the backing block device; 0 for a regular file.
    pub(super) rdev: u64,
    /// Offset in the backing file at which the device starts.
    pub(super) offset: u64,
    /// Maximum length of the device in bytes; 0 for up to the end of the file.
    pub(super) size_limit: u64,
}

/// Queries an open loop device, or a partition of one.
///
/// # Errors
/// `ENXIO`: it has no backing file. Other errors may mean that it isn't a loop device.
pub(super) fn status(device: &File) -> io::Result<Status> {
    let mut info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    // SAFETY: the descriptor is open, `device` is borrowed. The call writes one struct loop_info64, whose
    // size and layout `LoopInfo` has; it is exclusively borrowed, and any value of its fields is valid. Other
    // block drivers don't know the ioctl number.
    let returned = unsafe { ioctl_with_mut_ref(device, GET_STATUS, &mut info) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    let LoopInfo { device: dev, inode: ino, rdevice: rdev, offset, size_limit, .. } = info;
    Ok(Status { dev, ino, rdev, offset, size_limit })
}

impl Status {
    /// Whether this device and `other` overlap, if both are backed by the same file.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let end = |status: &Self| match status.size_limit {
            0 => u64::MAX,
            limit => status.offset.saturating_add(limit),
        };
        self.offset < end(other) && other.offset < end(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size in the kernel's header.
    #[test]
    fn structure_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<LoopInfo>(), 232);
    }

    #[test]
    fn devices_of_one_file_overlap_by_their_ranges() {
        let range = |offset, size_limit| Status { dev: 1, ino: 2, rdev: 0, offset, size_limit };
        assert!(range(0, 0).overlaps(&range(4096, 512)));
        assert!(range(4096, 512).overlaps(&range(4607, 1)));
        assert!(!range(0, 4096).overlaps(&range(4096, 0)));
        assert!(!range(4096, 512).overlaps(&range(0, 4096)));
        assert!(range(u64::MAX - 1, u64::MAX).overlaps(&range(0, 0)));
    }
}
