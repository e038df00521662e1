//! What a disk that is written has to do with loop devices: neither a lock on such a device nor a claim of it is seen at what it is
//! over, nor the other way round. So all that is below a device is locked or claimed with it, down to a file.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::errno::Errno;
use vmm_hostio::loop_device::{Backing, below, open_device, over, slaves};
use vmm_hostio::overlay_mount;
use vmm_hostio::range_lock::{self, DOES, FORBIDS, LockKind, READ, RESIZE, WRITE};

use crate::file_lock::is_disk_or_output;

/// Devices and files below one. The kernel lets 8 file systems and devices lie over each other, but each may consist of many.
const LAYERS_MAX: usize = 256;

/// What is below a disk: nobody else writes it as long as this lives.
#[derive(Debug, Default)]
pub(crate) struct LayersBelow {
    held: Vec<File>,
}

/// Locks and claims all that is below `file`, which is open to be written and was `found`, or says why it mustn't be written.
pub(crate) fn hold_below(file: &File, found: &Metadata) -> Result<LayersBelow, String> {
    if let Some(device) = over(found) {
        let noun = if found.is_file() { "file" } else { "device" };
        return Err(format!(
            "is the backing {noun} of /dev/{device}: name that device, or detach it, losetup -d /dev/{device}"
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
            // Whoever made a device of others has claimed them.
            None => {
                unseen.extend(slaves(number).into_iter().map(|slave| (slave, open_device(slave, false).ok())))
            }
        }
    }
    Err(format!("is on more than {LAYERS_MAX} other devices: use one of those"))
}

impl LayersBelow {
    /// Locks or claims what a loop device is over, and the other devices over the same. Returns it, if it is a device too.
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
                // Who can't open it can't keep others from it either.
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
            // It has no name here, or isn't for this user. Its locks can be seen all the same, but no lock be added.
            let Some((dev, ino)) = backing.file() else {
                return Err(format!(
                    "is a loop device, and its backing file {backing} can't be found: attach it anew"
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
        // Not what a disk locks: the other partitions of the device may have other users, who look for those.
        let is_refused =
            |byte| matches!(range_lock::lock(&file, LockKind::Shared, byte..byte + 1), Ok(false));
        // First one's own, and only then a look at the others': of two who come at once at least one sees the other.
        if [FORBIDS + WRITE, FORBIDS + RESIZE].into_iter().any(is_refused) || is_disk_or_output(&file) {
            return Err(in_use());
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

/// A name of an open file, whatever its others are.
fn open_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}
