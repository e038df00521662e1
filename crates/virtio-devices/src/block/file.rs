//! Opens and checks a disk's file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use vmm_virtio::DeviceError;

use super::format;
use super::request::SECTOR_LEN;
use crate::file_lock::lock;
use crate::host_file::{self, HostFile};
use crate::loop_device::LayersBelow;
use crate::place::{Access, Place};
use crate::{image_format, shell};

/// What a second writer of the same disk may do.
const OVERLAY: &str = ", or use an \"overlay\"";

/// An open, locked regular file or block device.
#[derive(Debug)]
pub(super) struct DiskFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) is_device: bool,
    /// To be kept for as long as the file.
    pub(super) below: LayersBelow,
}

impl DiskFile {
    /// Opens and locks a disk's file: exclusively for [`Access::ReadWrite`], shared with readers otherwise.
    pub(super) fn open(place: Place<'_>, access: Access) -> Result<Self, DeviceError> {
        let HostFile { file, is_device, below } = host_file::open(place, access, "an image file")?;
        lock(&file, place, access, OVERLAY)?;
        Ok(Self { file, path: place.path.to_owned(), is_device, below })
    }

    /// The current length in bytes, also of a block device.
    pub(super) fn len(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// The length, if it is valid for a raw disk.
    pub(super) fn disk_len(&self, place: Place<'_>) -> Result<u64, DeviceError> {
        let len = self.len().map_err(|error| place.host("has no length", &error))?;
        let path = shell::path(place.path);
        if len == 0 {
            let advice = format!("truncate -s 1G {path}");
            return Err(place.wrong(&format!("is empty, but needs at least 512 bytes: try {advice}")));
        }
        if !len.is_multiple_of(SECTOR_LEN) {
            let problem = format!("has {len} bytes, not a multiple of the sector size, 512");
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

    /// Opens the same file again. The new open file description has no lock of its own, and doesn't claim a
    /// block device.
    pub(super) fn open_again(&self, access: Access, flags: OFlag) -> io::Result<File> {
        // Through the descriptor: the path may refer to another file by now.
        File::options()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(flags.bits())
            .open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}
