//! What every device does with a file of the host that its guest may change: it is opened without doing anything to what is
//! none. [`lock`](crate::file_lock::lock) sees to it that it has one writer at a time.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_hostio::overlay_mount;
use vmm_virtio::DeviceError;

use crate::loop_device::{LayersBelow, hold_below};
use crate::place::{Access, Place};

/// A regular file or a block device, open.
#[derive(Debug)]
pub(crate) struct HostFile {
    pub(crate) file: File,
    pub(crate) is_device: bool,
    /// To be kept as long as the file is written.
    pub(crate) below: LayersBelow,
}

/// Opens a regular file or a block device; `noun` is what the device wants, with its article. It isn't locked, but what is below a
/// loop device that is to be written is.
///
/// A block device that is to be written is claimed: whoever has it by another node of the same device, or has mounted it, keeps
/// us out, and we them. A lock is of one node only.
pub(crate) fn open(place: Place<'_>, access: Access, noun: &str) -> Result<HostFile, DeviceError> {
    // Before it is opened: that blocks on a FIFO, and does things to some devices.
    let found = std::fs::metadata(place.path).map_err(|error| unopened(place, access, error))?;
    check(place, access, noun, &found)?;
    // If it has become a FIFO meanwhile.
    let mut flags = OFlag::O_NONBLOCK;
    if access == Access::ReadWrite && found.file_type().is_block_device() {
        // Without O_CREAT, of a block device: open(2).
        flags |= OFlag::O_EXCL;
    }
    let file = File::options()
        .read(true)
        .write(access == Access::ReadWrite)
        .custom_flags(flags.bits())
        .open(place.path)
        .map_err(|error| unopened(place, access, error))?;
    let found = file.metadata().map_err(|error| place.host("can't be looked at", &error))?;
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
    // io_uring gives up too early on a file that mustn't block.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|error| place.host("can't be made to block", &error.into()))?;
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

/// What a writer is told of what it can't write.
const READ_ONLY: &str = "is read-only but \"read_only\" is false, set that or let it be written";

/// What a writer is told of a block device that somebody else has claimed.
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
    // Root could, but who took away every right to write meant it.
    if access == Access::ReadWrite && found.permissions().mode() & 0o222 == 0 {
        return Err(place.wrong(READ_ONLY));
    }
    Ok(())
}

/// What it is, if it is neither a regular file nor a block device.
fn describe(kind: FileType) -> &'static str {
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a character device"),
    ];
    kinds.iter().find(|(is, _)| *is).map_or("no file", |(_, name)| *name)
}

/// The `len` bytes at `at`, fewer if the file ends before.
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
