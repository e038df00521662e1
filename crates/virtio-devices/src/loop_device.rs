//! What a disk that is written has to do with loop devices: a lock on such a device isn't seen at its backing file, nor the other
//! way round.

use std::fs::{File, Metadata};

use vmm_hostio::loop_device::{below, over};

use crate::file_lock::is_disk_or_output;

/// Why the opened file or block device that `found` is of mustn't be written beside the other one; `None` if nothing is known
/// against it.
pub(crate) fn conflict(found: &Metadata) -> Option<String> {
    if found.is_file() {
        let device = over(found)?;
        return Some(format!(
            "is the backing file of /dev/{device}: name that device, or detach it, losetup -d /dev/{device}"
        ));
    }
    let backing = below(found)?;
    let is_in_use = File::open(&backing).is_ok_and(|file| is_disk_or_output(&file));
    is_in_use.then(|| {
        format!(
            "is a loop device whose backing file {} is in use as a disk or as an output: stop who has that",
            backing.display()
        )
    })
}
