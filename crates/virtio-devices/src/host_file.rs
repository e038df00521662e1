//! Opens host files that a guest may change, without side effects on files of other types.
//! [`lock`](crate::file_lock::lock) ensures a single writer.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{major, minor};
use vmm_hostio::overlay_mount;
use vmm_virtio::DeviceError;

use crate::loop_device::{LayersBelow, hold_below};
use crate::place::{Access, Place};

/// An open regular file or block device.
#[derive(Debug)]
pub(crate) struct HostFile {
    pub(crate) file: File,
    pub(crate) is_device: bool,
    /// To be kept for as long as the file is written.
    pub(crate) below: LayersBelow,
}

/// Opens a regular file or a block device. `noun` is what the device expects, with an article, for messages.
/// The file isn't locked, but if a loop device is opened for writing, what it is backed by is.
///
/// A block device opened for writing is claimed, which conflicts with mounts and with users of other nodes of
/// the same device. A lock covers only one node.
pub(crate) fn open(place: Place<'_>, access: Access, noun: &str) -> Result<HostFile, DeviceError> {
    // Check before opening: opening blocks on a FIFO, and has side effects on some devices.
    let found = std::fs::metadata(place.path).map_err(|error| unopened(place, access, error))?;
    check(place, access, noun, &found)?;
    // In case it has become a FIFO meanwhile.
    let mut flags = OFlag::O_NONBLOCK;
    if access == Access::ReadWrite && found.file_type().is_block_device() {
        // O_EXCL without O_CREAT claims a block device, see open(2).
        flags |= OFlag::O_EXCL;
    }
    let file = File::options()
        .read(true)
        .write(access == Access::ReadWrite)
        .custom_flags(flags.bits())
        .open(place.path)
        .map_err(|error| unopened(place, access, error))?;
    let found = file.metadata().map_err(|error| place.host("can't be examined", &error))?;
    check(place, access, noun, &found)?;
    let below = match access {
        Access::Read => LayersBelow::default(),
        Access::ReadWrite => {
            if let Some(mount) = overlay_mount::above(place.path) {
                return Err(place.wrong(&format!(
                    "lies in the upper directory of the overlay file system at {}, where its locks aren't seen: name it by its \
                     path there, or unmount that",
                    mount.display()
                )));
            }
            hold_below(&file, &found).map_err(|conflict| place.wrong(&conflict))?
        }
    };
    // io_uring gives up early on a non-blocking file.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|error| place.host("can't be set to blocking", &error.into()))?;
    Ok(HostFile { file, is_device: found.file_type().is_block_device(), below })
}

fn unopened(place: Place<'_>, access: Access, error: io::Error) -> DeviceError {
    match (error.kind(), access) {
        (ErrorKind::NotFound | ErrorKind::NotADirectory, _) => match std::fs::read_link(place.path) {
            Ok(target) => place.wrong(&format!(
                "is a symbolic link to {}, which doesn't exist: create that or correct the link",
                target.display()
            )),
            Err(_) => place.wrong("doesn't exist, create it or correct the path"),
        },
        (ErrorKind::ResourceBusy, _) => place.wrong(BUSY),
        (ErrorKind::ReadOnlyFilesystem, Access::ReadWrite) => place.wrong(READ_ONLY),
        (ErrorKind::PermissionDenied, Access::ReadWrite) if File::open(place.path).is_ok() => {
            place.wrong(READ_ONLY)
        }
        (ErrorKind::PermissionDenied, _) => place.wrong("can't be opened: permission denied, see chmod(1)"),
        _ => place.host("can't be opened", &error),
    }
}

/// Message for a writer that lacks write permission.
const READ_ONLY: &str = "is read-only but \"read_only\" is false, set that or let it be written";

/// Message for a writer of a block device that is claimed already.
const BUSY: &str = "is in use by the host (mounted, as swap or in a volume), or by another program or device of this machine: \
                    see lsblk(8) and free it, or set \"read_only\"";

fn check(place: Place<'_>, access: Access, noun: &str, found: &Metadata) -> Result<(), DeviceError> {
    let kind = found.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let kind = describe(kind);
        let found = match std::fs::read_link(place.path) {
            Ok(target) => format!("is a symbolic link to {}, which is {kind}:", target.display()),
            Err(_) => format!("is {kind},"),
        };
        return Err(place.wrong(&format!("{found} name {noun} or a block device")));
    }
    // Root could write it, but a file without any write permission is meant to be read-only.
    let is_read_only = || found.permissions().mode() & 0o222 == 0 || is_read_only_device(found);
    if access == Access::ReadWrite && is_read_only() {
        return Err(place.wrong(READ_ONLY));
    }
    Ok(())
}

/// Whether it is a block device that the kernel doesn't write, such as one of `losetup -r`. Such a device can be
/// opened for writing.
fn is_read_only_device(found: &Metadata) -> bool {
    let number = found.rdev();
    let path = format!("/sys/dev/block/{}:{}/ro", major(number), minor(number));
    // Without sysfs, it is unknown.
    found.file_type().is_block_device() && std::fs::read(path).is_ok_and(|text| text.starts_with(b"1"))
}

/// The type of a file that is neither regular nor a block device.
fn describe(kind: FileType) -> &'static str {
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a character device"),
    ];
    kinds.iter().find(|(is, _)| *is).map_or("no file", |(_, name)| *name)
}

/// The `len` bytes at `at`, or fewer at the end of the file.
pub(crate) fn read_range(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
