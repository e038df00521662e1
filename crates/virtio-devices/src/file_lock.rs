//! Locks on host files: one writer at a time, or any number of readers.
//!
//! The locks are those of [`range_lock`]: two disks of one machine exclude each other as those of two
//! machines do. They bind only programs that check them.
//!
//! Most monitors lock the whole file, or its start, for writing or reading. QEMU takes only read locks on
//! single bytes, each with a meaning (QEMU, block/file-posix.c, `raw_apply_lock_bytes`): a lock on byte 100 +
//! n means that the holder does n, a lock on byte 200 + n that it forbids others to do n. A program that
//! opens the file takes its own locks and then checks for conflicting ones. A whole-file lock of ours would
//! cover all of these bytes, and QEMU's locks would never conflict with a read lock of ours. So we use both:
//! one kind of lock around QEMU's bytes, and QEMU's protocol on them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vmm_hostio::InputLock;
use vmm_hostio::range_lock::{self, DOES, END, FORBIDS, LockKind, READ, RESIZE, WRITE, WRITE_UNCHANGED};
use vmm_virtio::DeviceError;

use crate::place::{Access, Place};

/// The ranges around QEMU's bytes, with space for future permissions.
const AROUND: [Range<u64>; 2] = [0..DOES, 300..END];
/// What a reader or writer does, and what it forbids others to do.
struct Claims {
    does: &'static [u64],
    forbids: &'static [u64],
}

const READER: Claims = Claims { does: &[READ], forbids: &[WRITE, RESIZE] };
const WRITER: Claims = Claims {
    does: &[READ, WRITE, WRITE_UNCHANGED, RESIZE],
    forbids: &[READ, WRITE, WRITE_UNCHANGED, RESIZE],
};

/// Locks `file`: exclusively for a writer, shared for a reader. `instead` is another option for a second
/// writer, for the message.
///
/// A writer is refused if a machine reads the file, say as its config, which its guest could then change.
pub(crate) fn lock(file: &File, place: Place<'_>, access: Access, instead: &str) -> Result<(), DeviceError> {
    let unlockable = |error| place.host("can't be locked", &error);
    if !try_lock(file, access).map_err(unlockable)? {
        return Err(place.wrong(&refusal(access, Holder::of(file), instead)));
    }
    match input(file).map_err(unlockable)? {
        Some(input) if access == Access::ReadWrite => Err(place.wrong(&format!(
            "is in use as {input}, which a guest must not change: name another file, or set \"read_only\"{instead}"
        ))),
        _ => Ok(()),
    }
}

/// The use of the file as an input of a machine, if there is one that a guest must not change. Standard input is
/// no part of the machine.
pub(crate) fn input(file: &File) -> io::Result<Option<InputLock>> {
    Ok(InputLock::find(file)?.filter(|input| *input != InputLock::Stdin))
}

/// Holder of a conflicting lock.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// Another device of the same machine, or the same device, with the file in its own backing chain.
    SameMachine,
    OtherProgram,
    /// The kernel doesn't tell.
    Unknown,
}

impl Holder {
    fn of(file: &File) -> Self {
        match has_another_lock(file) {
            Ok(true) => Self::SameMachine,
            Ok(false) => Self::OtherProgram,
            Err(_) => Self::Unknown,
        }
    }
}

/// Whether this process holds a lock on the file by another descriptor. There is no system call for that, but
/// proc(5) lists the locks of each descriptor.
fn has_another_lock(file: &File) -> io::Result<bool> {
    let (own, wanted) = (file.as_raw_fd().to_string(), file.metadata()?);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        // The descriptor was closed meanwhile.
        let Ok(found) = std::fs::metadata(entry.path()) else { continue };
        let is_same = (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        if !is_same || name == own.as_str() {
            continue;
        }
        if std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(name))?.contains("\nlock:") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn refusal(access: Access, holder: Holder, instead: &str) -> String {
    let share = format!("set \"read_only\" for both{instead}");
    match (access, holder) {
        (Access::Read, Holder::SameMachine) => {
            format!("is used twice in this machine, and written: remove one of the two, or {share}")
        }
        (Access::Read, Holder::OtherProgram) => {
            "is being written by another program: stop that one, or wait for its end; a copy made before is damaged"
                .to_owned()
        }
        (Access::Read, Holder::Unknown) => format!(
            "is being written by another program, or used twice in this machine: stop that program, or remove one of the two, \
             or {share}"
        ),
        (Access::ReadWrite, Holder::SameMachine) => {
            format!("is used twice in this machine: remove one of the two, or {share}")
        }
        (Access::ReadWrite, Holder::OtherProgram) => {
            format!("is locked by another program: stop that one, or {share}")
        }
        (Access::ReadWrite, Holder::Unknown) => format!(
            "is locked by another program, or used twice in this machine: stop that program, or remove one of the two, or \
             {share}"
        ),
    }
}

/// Whether the file is in use as a disk (by QEMU, another monitor, or another descriptor of this process) or
/// as an output of a monitor. Logs are locked like writable disks.
pub(crate) fn is_disk_or_output(file: &File) -> bool {
    range_lock::find(file, DOES + READ..DOES + RESIZE + 1).is_ok_and(|found| found.is_some())
}

/// Whether the lock was acquired. If not, some of its parts may stay locked until `file` is closed.
fn try_lock(file: &File, access: Access) -> io::Result<bool> {
    let (kind, claims) = match access {
        Access::Read => (LockKind::Shared, READER),
        Access::ReadWrite => (LockKind::Exclusive, WRITER),
    };
    for range in AROUND {
        if !range_lock::lock(file, kind, range)? {
            return Ok(false);
        }
    }
    // Take all of our locks before checking those of others, so that of two concurrent openers at least one
    // sees the other.
    for byte in bytes(DOES, claims.does).chain(bytes(FORBIDS, claims.forbids)) {
        if !range_lock::lock(file, LockKind::Shared, byte..byte + 1)? {
            return Ok(false);
        }
    }
    for byte in bytes(DOES, claims.forbids).chain(bytes(FORBIDS, claims.does)) {
        if range_lock::find(file, byte..byte + 1)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn bytes(base: u64, what: &'static [u64]) -> impl Iterator<Item = u64> {
    what.iter().map(move |number| base + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without /proc, the message must cover both cases.
    #[test]
    fn holder_that_is_unknown_may_be_either() {
        assert_eq!(
            refusal(Access::ReadWrite, Holder::Unknown, ""),
            "is locked by another program, or used twice in this machine: stop that program, or remove one of the two, or set \
             \"read_only\" for both"
        );
        assert_eq!(
            refusal(Access::Read, Holder::Unknown, ", or use an \"overlay\""),
            "is being written by another program, or used twice in this machine: stop that program, or remove one of the two, \
             or set \"read_only\" for both, or use an \"overlay\""
        );
    }

    /// Without a lock it doesn't belong to a device, such as an inherited descriptor of the same file.
    #[test]
    fn descriptor_without_a_lock_is_no_holder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = File::open(file.path()).unwrap();
        assert!(!has_another_lock(&other).unwrap());
        assert!(try_lock(file.as_file(), Access::ReadWrite).unwrap());
        assert!(has_another_lock(&other).unwrap());
        assert!(!has_another_lock(file.as_file()).unwrap(), "its own is none of another's");
    }
}
