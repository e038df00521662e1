//! Opening a disk's file, with everything that may be wrong with it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use vmm_virtio::DeviceError;

use super::format;
use super::request::SECTOR_LEN;
use crate::file_lock::lock;
use crate::host_file::{self, HostFile};
use crate::loop_device::LayersBelow;
use crate::place::{Access, Place};
use crate::{image_format, shell};

/// What a second writer of one disk may do.
const OVERLAY: &str = ", or use an \"overlay\"";

/// A regular file or a block device, open and locked.
#[derive(Debug)]
pub(super) struct DiskFile {
    pub(super) file: File,
    pub(super) is_device: bool,
    /// To be kept as long as the file.
    pub(super) below: LayersBelow,
}

impl DiskFile {
    /// Opens a file for a disk. It is locked as long as it is open: against everybody for [`Access::ReadWrite`], against
    /// writers otherwise.
    pub(super) fn open(place: Place<'_>, access: Access) -> Result<Self, DeviceError> {
        let HostFile { file, is_device, below } = host_file::open(place, access, "an image file")?;
        lock(&file, place, access, OVERLAY)?;
        Ok(Self { file, is_device, below })
    }

    /// Its length now, in bytes; a block device's too.
    pub(super) fn len(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Its length, if its bytes can be those of a disk.
    pub(super) fn disk_len(&self, place: Place<'_>) -> Result<u64, DeviceError> {
        let len = self.len().map_err(|error| place.host("has no length", &error))?;
        let path = shell::path(place.path);
        if len == 0 {
            let advice = format!("truncate -s 1G {path}");
            return Err(place.wrong(&format!("is empty, a disk has at least 512 bytes: try {advice}")));
        }
        if !len.is_multiple_of(SECTOR_LEN) {
            let problem = format!("has {len} bytes, not a multiple of the sector's 512");
            let rest = match image_format::detect(&self.file) {
                Ok(Some(found)) => {
                    format!(", and looks like {}: {}", found.noun(), format::remedy(found, place.path))
                }
                _ => format!(": try truncate -s {} {path}", len.next_multiple_of(SECTOR_LEN)),
            };
            return Err(place.wrong(&(problem + &rest)));
        }
        Ok(len)
    }

    /// The same file, past the page cache (O_DIRECT). It has no lock of its own.
    pub(super) fn open_direct(&self, access: Access) -> io::Result<File> {
        // By its descriptor: what the path names may have changed.
        File::options()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}
