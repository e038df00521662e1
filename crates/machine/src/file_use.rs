//! Marks files that are in use, so that no output overwrites them.
//!
//! Each user of a file locks a range of it ([`range_lock`]); the range shows the use.
//!
//! | use | lock |
//! |---|---|
//! | disk | the bytes that QEMU locks for a disk, and more (`file_lock.rs` in vmm-virtio-devices) |
//! | kernel, image, config, standard input and so on | an [`InputLock`], on a byte that no disk locks: the file may be a read-only disk too |
//! | log | read locks on QEMU's bytes for "writes" and "resizes" |
//! | a file that is replaced | a write lock on all of it |
//!
//! So any number of machines share a kernel or a log, and a file that is replaced isn't shared at all. Locking never waits. On
//! file systems without locks, and under security policies that forbid them, uses aren't detected.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use vmm_hostio::InputLock;
use vmm_hostio::range_lock::{self, DOES, END, LockKind, RangeLock};

/// The byte that QEMU locks to read a disk: all disks are read.
const READS: u64 = DOES + range_lock::READ;
/// The byte that it locks to write one.
const WRITES: u64 = DOES + range_lock::WRITE;
/// The byte that it locks to resize one.
const RESIZES: u64 = DOES + range_lock::RESIZE;
/// How an output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// From the beginning, by one writer.
    Replaces,
    /// At the end, by any number of writers.
    Appends,
}

/// The use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Disk,
    Input(InputLock),
    Log,
    /// Its contents are replaced.
    Output,
    /// A console's socket is bound there.
    Socket,
    /// Locked by another program, by its own rules.
    Other,
}

/// A lock on a machine's config file, so that no output of this or another machine replaces it.
#[derive(Debug)]
#[must_use = "the file is protected for as long as this lives"]
pub struct ConfigInUse {
    _file: Option<File>,
}

impl ConfigInUse {
    /// Marks `path` as in use. A file that can't be opened or locked isn't protected.
    pub fn note(path: &Path) -> Self {
        // Only regular files: if a pipe has replaced the config since it was read, it isn't opened.
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        let file = is_file.then(|| open_to_read(path).ok()).flatten();
        if let Some(file) = &file {
            // An error means that it is an output or a log. It isn't read again, so its writer may go on.
            let _ = take_input(file, InputLock::Config);
        }
        Self { _file: file }
    }
}

/// Marks `file` as in use as standard input until the returned file is closed. `None` if it can't be protected.
pub(crate) fn note_stdin(file: &File) -> Option<File> {
    // A new open file: a lock on the stream's own would remain as long as the shell has it open.
    let ours = open_again(file)?;
    // A file that others write is accepted: a monitor may read another one's output.
    let _ = take_input(&ours, InputLock::Stdin);
    Some(ours)
}

/// Marks `file`, which must be open for reading, as in use until its last descriptor is closed.
///
/// # Errors
/// It is an output or a log, whose contents change.
pub(crate) fn take_input(file: &File, input: InputLock) -> io::Result<()> {
    // A file that can't be locked isn't protected.
    let _ = input.take(file);
    match found_use(file, Writing::Replaces) {
        Some(found @ (Use::Output | Use::Log)) => Err(found.refusal()),
        _ => Ok(()),
    }
}

/// Locks a file whose contents are to be replaced, until its last descriptor is closed.
///
/// # Errors
/// It is in use.
pub(crate) fn take_output(file: &File) -> io::Result<()> {
    match range_lock::lock(file, LockKind::Exclusive, 0..END) {
        Ok(true) => Ok(()),
        Ok(false) => Err(found_use(file, Writing::Replaces).unwrap_or(Use::Other).refusal()),
        // Without permission to lock it, others may still have locks.
        Err(_) => refuse_use(file, Writing::Replaces),
    }
}

/// Marks `file` as a log or another output with any number of writers, until the returned file, if any, is closed.
///
/// # Errors
/// It is in use as something else.
pub(crate) fn share_log(file: &File) -> io::Result<Option<File>> {
    // A read lock needs a file open for reading. A log without read permission can't be marked.
    let ours = open_again(file);
    // Lock first, then look for others: of two that start at the same time at least one sees the other.
    let is_refused = |ours| {
        let noted = |byte| range_lock::lock(ours, LockKind::Shared, byte..byte + 1);
        [WRITES, RESIZES].into_iter().any(|byte| matches!(noted(byte), Ok(false)))
    };
    if ours.as_ref().is_some_and(is_refused) {
        return Err(found_use(file, Writing::Appends).unwrap_or(Use::Other).refusal());
    }
    refuse_use(file, Writing::Appends).map(|()| ours)
}

/// Whether other monitors also use this file as a log. `lock` is the file that [`share_log`] returned.
pub(crate) fn is_log_of_others(lock: &File) -> bool {
    found(lock, WRITES..WRITES + 1).is_some()
}

/// Refuses a file whose use rules out this way of writing it.
///
/// # Errors
/// It is in use.
pub(crate) fn refuse_use(file: &File, writing: Writing) -> io::Result<()> {
    found_use(file, writing).map_or(Ok(()), |found| Err(found.refusal()))
}

impl Use {
    pub(crate) fn refusal(self) -> io::Error {
        io::Error::other(format!("it is {self}; name another file"))
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("in use as a disk"),
            Self::Input(input) => write!(f, "in use as {input}"),
            Self::Log => f.write_str("in use as a log or as standard output"),
            Self::Output => {
                f.write_str("being written by another console, by --metrics or by another monitor")
            }
            Self::Socket => f.write_str("the socket of another console"),
            Self::Other => f.write_str("locked by another program"),
        }
    }
}

/// The use of a file by others, if it rules out this way of writing it.
fn found_use(file: &File, writing: Writing) -> Option<Use> {
    let byte = |at| found(file, at..at + 1);
    if let Some(lock) = byte(READS) {
        return Some(if lock.kind == LockKind::Exclusive { Use::Output } else { Use::Disk });
    }
    if let Ok(Some(input)) = InputLock::find(file) {
        return Some(Use::Input(input));
    }
    match writing {
        Writing::Replaces if byte(WRITES).is_some() => Some(Use::Log),
        Writing::Replaces => found(file, 0..END).map(|_| Use::Other),
        // Every range but those that logs lock.
        Writing::Appends => {
            let around = [0..WRITES, WRITES + 1..RESIZES, RESIZES + 1..END];
            around.into_iter().find_map(|range| found(file, range)).map(|_| Use::Other)
        }
    }
}

/// Another open file's lock in this range; `None` also where locks aren't supported.
fn found(file: &File, range: Range<u64>) -> Option<RangeLock> {
    range_lock::find(file, range).ok().flatten()
}

/// Opens the same file again, so that it has its own locks.
fn open_again(file: &File) -> Option<File> {
    open_to_read(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref()).ok()
}

fn open_to_read(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    fn reader(file: &NamedTempFile) -> File {
        File::open(file.path()).unwrap()
    }

    fn writer(file: &NamedTempFile) -> File {
        File::options().append(true).open(file.path()).unwrap()
    }

    fn file() -> NamedTempFile {
        NamedTempFile::new().unwrap()
    }

    #[track_caller]
    fn assert_refused<T: std::fmt::Debug>(result: io::Result<T>, message: &str) {
        assert_eq!(result.unwrap_err().to_string(), message);
    }

    #[test]
    fn input_is_not_replaced_until_its_user_has_gone() {
        let file = file();
        let user = reader(&file);
        take_input(&user, InputLock::Kernel).unwrap();
        assert_refused(take_output(&writer(&file)), "it is in use as a kernel; name another file");
        drop(user);
        take_output(&writer(&file)).unwrap();
    }

    #[test]
    fn output_or_log_is_no_input() {
        let (output, log) = (file(), file());
        let (output_user, log_user) = (writer(&output), share_log(&writer(&log)).unwrap());
        take_output(&output_user).unwrap();
        let message =
            "it is being written by another console, by --metrics or by another monitor; name another file";
        assert_refused(take_input(&reader(&output), InputLock::Kernel), message);
        assert_refused(
            take_input(&reader(&log), InputLock::Kernel),
            "it is in use as a log or as standard output; name another file",
        );
        drop((output_user, log_user));
        take_input(&reader(&output), InputLock::Kernel).unwrap();
        take_input(&reader(&log), InputLock::Kernel).unwrap();
    }

    #[test]
    fn inputs_are_distinguished() {
        let found = InputLock::ALL.map(|input| {
            let (file, other) = (file(), file());
            let user = reader(&file);
            take_input(&user, input).unwrap();
            take_output(&writer(&other)).unwrap();
            found_use(&writer(&file), Writing::Replaces)
        });
        assert_eq!(found, InputLock::ALL.map(|input| Some(Use::Input(input))));
    }

    #[test]
    fn input_is_not_a_log_either() {
        let file = file();
        let user = reader(&file);
        take_input(&user, InputLock::Config).unwrap();
        let message = "it is in use as the config of a machine; name another file";
        assert_refused(share_log(&writer(&file)), message);
    }

    #[test]
    fn input_of_two_machines_is_shared() {
        let file = file();
        let (first, second) = (reader(&file), reader(&file));
        take_input(&first, InputLock::Kernel).unwrap();
        take_input(&second, InputLock::Kernel).unwrap();
        drop(first);
        assert_refused(take_output(&writer(&file)), "it is in use as a kernel; name another file");
        drop(second);
        take_output(&writer(&file)).unwrap();
    }

    #[test]
    fn config_is_noted_by_any_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (config, link, hard) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        std::fs::write(&config, "{}").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        std::fs::hard_link(&config, &hard).unwrap();
        let noted = ConfigInUse::note(&link);
        let other = File::options().write(true).open(&hard).unwrap();
        assert_refused(take_output(&other), "it is in use as the config of a machine; name another file");
        drop(noted);
        take_output(&other).unwrap();
    }

    /// The lock isn't on the stream's own open file, which the shell keeps open.
    #[test]
    fn standard_input_is_noted_until_it_is_dropped() {
        let file = file();
        let stream = reader(&file);
        let noted = note_stdin(&stream).unwrap();
        let message = "it is in use as the standard input of a machine; name another file";
        assert_refused(take_output(&writer(&file)), message);
        assert_refused(share_log(&writer(&file)), message);
        drop(noted);
        take_output(&writer(&file)).unwrap();
    }

    #[test]
    fn output_that_is_replaced_has_one_writer() {
        let file = file();
        let first = writer(&file);
        take_output(&first).unwrap();
        let message =
            "it is being written by another console, by --metrics or by another monitor; name another file";
        assert_refused(take_output(&writer(&file)), message);
        assert_refused(share_log(&writer(&file)), message);
        drop(first);
        take_output(&writer(&file)).unwrap();
    }

    #[test]
    fn log_is_shared_with_logs_alone() {
        let file = file();
        let logs = [share_log(&writer(&file)).unwrap(), share_log(&writer(&file)).unwrap()];
        assert_refused(
            take_output(&writer(&file)),
            "it is in use as a log or as standard output; name another file",
        );
        drop(logs);
        take_output(&writer(&file)).unwrap();
    }

    /// Locks a read-only disk as `file_lock.rs` in vmm-virtio-devices and QEMU do.
    fn lock_disk(file: &File) {
        [READS, 201, 203]
            .into_iter()
            .for_each(|byte| assert!(range_lock::lock(file, LockKind::Shared, byte..byte + 1).unwrap()));
    }

    #[test]
    fn disk_is_neither_replaced_nor_a_log_while_somebody_has_it() {
        let file = file();
        let user = reader(&file);
        lock_disk(&user);
        let message = "it is in use as a disk; name another file";
        assert_refused(take_output(&writer(&file)), message);
        assert_refused(share_log(&writer(&file)), message);
        drop(user);
        share_log(&writer(&file)).unwrap();
    }

    #[test]
    fn input_may_be_a_read_only_disk_too() {
        let file = file();
        let user = reader(&file);
        take_input(&user, InputLock::Image).unwrap();
        let others = writer(&file);
        // QEMU's bytes, and the ranges around them.
        assert!(
            [0..range_lock::FORBIDS + 64, 300..END].into_iter().all(|range| found(&others, range).is_none())
        );
        lock_disk(&reader(&file));
    }

    #[test]
    fn log_forbids_a_disk() {
        let file = file();
        let _log = share_log(&writer(&file)).unwrap();
        let disk = reader(&file);
        lock_disk(&disk);
        // A read-only disk forbids others to write and resize.
        assert!([WRITES, RESIZES].iter().all(|&byte| found(&disk, byte..byte + 1).is_some()));
    }

    #[test]
    fn lock_of_a_program_that_has_its_own_way_is_respected() {
        let file = file();
        let user = reader(&file);
        assert!(range_lock::lock(&user, LockKind::Shared, 5..6).unwrap());
        let message = "it is locked by another program; name another file";
        assert_refused(take_output(&writer(&file)), message);
        assert_refused(share_log(&writer(&file)), message);
    }

    #[test]
    fn lock_of_flock_is_no_use() {
        let file = file();
        let user = reader(&file);
        user.lock().unwrap();
        take_output(&writer(&file)).unwrap();
    }
}
