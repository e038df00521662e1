//! One writer at a time of a file of the host, or any number of readers.
//!
//! The locks are those of [`range_lock`]: two disks of one machine exclude each other as two machines do. They bind only those
//! who ask for them.
//!
//! Most monitors lock the whole file, or its start, to write or to read it. QEMU doesn't: it takes nothing but read locks, on
//! single bytes, and each says something (QEMU, block/file-posix.c, `raw_apply_lock_bytes`). Byte 100 + n is locked by who
//! does n, byte 200 + n by who wants nobody else to do it; who opens the file takes its own and then asks who has others. A
//! lock of ours on all of the file would be one on each of these bytes, and theirs would never conflict with a read lock of
//! ours. So we do both: a lock of one kind around QEMU's bytes, and on these what QEMU does.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vmm_hostio::range_lock::{self, DOES, END, FORBIDS, LockKind, READ, RESIZE, WRITE, WRITE_UNCHANGED};
use vmm_virtio::DeviceError;

use crate::place::{Access, Place};

/// What lies around QEMU's bytes: room is left for permissions to come.
const AROUND: [Range<u64>; 2] = [0..DOES, 300..END];
/// What a reader or writer does, and what it wants nobody else to do.
struct Claims {
    does: &'static [u64],
    forbids: &'static [u64],
}

const READER: Claims = Claims { does: &[READ], forbids: &[WRITE, RESIZE] };
const WRITER: Claims = Claims {
    does: &[READ, WRITE, WRITE_UNCHANGED, RESIZE],
    forbids: &[READ, WRITE, WRITE_UNCHANGED, RESIZE],
};

/// Locks `file`, against everybody for a writer and against writers for a reader. `instead` is what else a second writer may
/// do.
pub(crate) fn lock(file: &File, place: Place<'_>, access: Access, instead: &str) -> Result<(), DeviceError> {
    match try_lock(file, access) {
        Ok(true) => Ok(()),
        Ok(false) => Err(place.wrong(&refusal(access, Holder::of(file), instead))),
        Err(error) => Err(place.host("can't be locked", &error)),
    }
}

/// Who has the lock that we don't get.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// Another device of the same machine, or this one's image, which has the file below itself.
    SameMachine,
    OtherProgram,
    /// The kernel doesn't say.
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

/// Whether this process has a lock on the file by another descriptor. The kernel has no call for that, but proc(5) lists the
/// locks of each descriptor.
fn has_another_lock(file: &File) -> io::Result<bool> {
    let (own, wanted) = (file.as_raw_fd().to_string(), file.metadata()?);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        // One that has been closed since.
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

/// Whether somebody has the file as a disk (QEMU, another monitor, or this one by another descriptor), or writes it as an output
/// of a monitor: what a log locks is what a disk that is written does.
pub(crate) fn is_disk_or_output(file: &File) -> bool {
    range_lock::find(file, DOES + READ..DOES + RESIZE + 1).is_ok_and(|found| found.is_some())
}

/// Whether nobody else has it. If somebody has, some locks may be left, until `file` is closed.
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
    // First all of one's own, and only then a look at the others': of two who come at once at least one sees the other.
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

    /// As where there is no /proc: both must be thought of.
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

    /// Without a lock it isn't a device's: an inherited descriptor of the same file.
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
