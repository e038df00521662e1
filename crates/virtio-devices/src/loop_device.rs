//! Writable disks and loop devices. Locks and claims on a loop device aren't visible on its backing file, nor
//! vice versa. So all layers below a device, down to a file, are locked or claimed together with it.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::errno::Errno;
use vmm_hostio::loop_device::{Backing, below, open_device, over, slaves};
use vmm_hostio::overlay_mount;
use vmm_hostio::range_lock::{self, DOES, FORBIDS, LockKind, READ, RESIZE, WRITE};

use crate::file_lock::{input, is_disk_or_output};

/// Maximum number of devices and files below a disk. The kernel allows stacks of 8 devices and file systems,
/// but each may consist of many.
const LAYERS_MAX: usize = 256;

/// The layers below a disk, locked or claimed for its lifetime.
#[derive(Debug, Default)]
pub(crate) struct LayersBelow {
    held: Vec<File>,
}

/// Locks and claims all layers below `file`, which is open for writing and has the metadata `found`. The
/// error says why it must not be written.
pub(crate) fn hold_below(file: &File, found: &Metadata) -> Result<LayersBelow, String> {
    if let Some(device) = over(found) {
        let noun = if found.is_file() { "file" } else { "device" };
        return Err(format!(
            "is the backing {noun} of /dev/{device}: use that device, or detach it, losetup -d /dev/{device}"
        ));
    }
    let mut layers = LayersBelow::default();
    if found.is_file() {
        return Ok(layers);
    }
    let mut unseen = vec![(found.rdev(), file.try_clone().ok())];
    for _ in 0..LAYERS_MAX {
        let Some((number, device)) = unseen.pop() else { return Ok(layers) };
        let backing = below(number, device.as_ref()).map_err(|error| {
            format!(
                "is or is on a loop device, and what that is over can't be found ({error}): name the file below it, see \
                 losetup --list"
            )
        })?;
        match backing {
            Some(backing) => unseen.extend(layers.hold(number, &backing)?),
            // A device built from others has claimed them.
            None => {
                unseen.extend(slaves(number).into_iter().map(|slave| (slave, open_device(slave, false).ok())))
            }
        }
    }
    Err(format!("is on more than {LAYERS_MAX} other devices: use one of those"))
}

impl LayersBelow {
    /// Locks or claims the backing of a loop device, and checks other loop devices with the same backing.
    /// Returns the backing if it is a device, too.
    fn hold(&mut self, device: u64, backing: &Backing) -> Result<Option<(u64, Option<File>)>, String> {
        if let Some(number) = backing.device() {
            let claim = claim(number, backing)?;
            let device = claim.try_clone().ok();
            self.held.push(claim);
            return Ok(Some((number, device)));
        }
        for (name, number) in backing.others(device) {
            match open_device(number, true) {
                Ok(claim) => self.held.push(claim),
                Err(error) if is_busy(&error) => {
                    return Err(format!(
                        "is a loop device whose backing file {backing} is that of /dev/{name} too, which is in use: stop who has \
                         that"
                    ));
                }
                // A user who can't open it can't lock it either.
                Err(_) => {}
            }
        }
        self.lock(backing)?;
        Ok(None)
    }

    fn lock(&mut self, backing: &Backing) -> Result<(), String> {
        let in_use = || {
            format!(
                "is a loop device whose backing file {backing} is in use as a disk or as an output: stop who has that"
            )
        };
        let Ok(file) = backing.open_file() else {
            // It has no path here or isn't accessible. Its locks can be checked all the same, but none can be
            // taken.
            let Some((dev, ino)) = backing.file() else {
                return Err(format!(
                    "is a loop device, and its backing file {backing} can't be found: attach it again"
                ));
            };
            let is_in_use = range_lock::is_locked(dev, ino, DOES + READ..DOES + RESIZE + 1);
            return if is_in_use.unwrap_or(false) { Err(in_use()) } else { Ok(()) };
        };
        if let Some(mount) = overlay_mount::above(&open_path(&file)) {
            return Err(format!(
                "is a loop device whose backing file {backing} lies in the upper directory of the overlay file system at {}, where \
                 its locks aren't seen: unmount that",
                mount.display()
            ));
        }
        // Not a disk's full lock: other partitions of the device may have other users, who check for that.
        let is_refused =
            |byte| matches!(range_lock::lock(&file, LockKind::Shared, byte..byte + 1), Ok(false));
        // Take our own locks before checking others', so that of two concurrent openers at least one sees the
        // other.
        if [FORBIDS + WRITE, FORBIDS + RESIZE].into_iter().any(is_refused) || is_disk_or_output(&file) {
            return Err(in_use());
        }
        if let Ok(Some(input)) = input(&file) {
            return Err(format!(
                "is a loop device whose backing file {backing} is in use as {input}, which a guest must not change: name another \
                 disk, or set \"read_only\""
            ));
        }
        self.held.push(file);
        Ok(())
    }
}

fn claim(number: u64, backing: &Backing) -> Result<File, String> {
    open_device(number, true).map_err(|error| {
        if is_busy(&error) {
            format!(
                "is a loop device over {backing}, which is in use by the host, or by another program or device of this machine: \
                 see lsblk(8) and free it, or set \"read_only\""
            )
        } else {
            format!("is a loop device over {backing}, which can't be claimed ({error}): see ls -l and chmod(1)")
        }
    })
}

/// Path to an open file, independent of its names.
fn open_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}
