//! Output files: those of consoles, the log, the counters.

use std::fs::{self, File, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, access};
use vmm_hostio::path_keeper::{Contents, remove_if_same};
use vmm_hostio::{loop_device, missing_directory};

use crate::file_use::{Writing, is_log_of_others, refuse_use, share_log, take_output};

/// The mode of new files: only for the owner, because they may contain the guest's secrets.
const PRIVATE: u32 = 0o600;

/// Maximum number of links that lead to a file (Linux, MAXSYMLINKS).
const LINKS_MAX: u32 = 40;

/// How many times an output is opened that others remove at the same time.
const OPENS_MAX: u32 = 10;

/// The seals that forbid to replace a file's contents (F_ADD_SEALS in fcntl(2)).
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;

/// A newly created output file. Dropping it before [`keep`](Self::keep) removes the file if it is still empty, so that a start
/// that is refused leaves nothing behind.
#[derive(Debug)]
pub(crate) struct NewFile {
    /// The canonical path, not that of a link.
    path: PathBuf,
    /// Device and inode number.
    inode: (u64, u64),
    is_kept: AtomicBool,
    /// The same open file, whose lock so lasts until the file is removed: nobody else uses it by then. `None` if the host is out of
    /// descriptors, with which the start fails at once.
    _locked: Option<File>,
}

impl NewFile {
    fn find(path: &Path, file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let inode = (found.dev(), found.ino());
        let (path, is_kept) = (path.canonicalize()?, AtomicBool::new(false));
        Ok(Self { path, inode, is_kept, _locked: file.try_clone().ok() })
    }

    /// What [`remove_if_same`] is called with.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the file, even if it is empty.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    fn remove_if_empty(&self) {
        // If another file has the name by now, it is left.
        let _ = remove_if_same(&self.path, self.inode.0, self.inode.1, Contents::Empty);
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            self.remove_if_empty();
        }
    }
}

/// Opens or creates a file whose contents are to be replaced. Nobody else can open it as an output until the last descriptor is
/// closed. The caller truncates it, and keeps it if it is new, when the start can no longer be refused.
///
/// Pipes and character devices can have any number of writers.
///
/// # Errors
/// It is in use as a disk, an input or an output, or can't be opened; a pipe without a reader can't.
pub(crate) fn open_output(path: &Path) -> io::Result<(File, Option<NewFile>)> {
    for _ in 0..OPENS_MAX {
        if let Some(opened) = settled(path, open(path, Writing::Replaces)?)? {
            return Ok(opened);
        }
    }
    Err(io::Error::other("others create and remove it all the time; name another file"))
}

/// The output if it could be locked; `None` if another file or none is at `path` now.
fn settled(
    path: &Path,
    (file, made): (File, Option<NewFile>),
) -> io::Result<Option<(File, Option<NewFile>)>> {
    // Whoever was faster has the file, also if it was made here.
    let is_ours = lock(path, &file).inspect_err(|_| made.iter().for_each(NewFile::keep))?;
    Ok(is_ours.then_some((file, made)))
}

/// Locks an open output. False if `path` isn't its name any more: who had made it was refused, and has removed it.
fn lock(path: &Path, file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    if !is_lasting(found.file_type()) {
        return Ok(true);
    }
    take_output(file)?;
    let is_same = |now: Metadata| (now.dev(), now.ino()) == (found.dev(), found.ino());
    Ok(fs::metadata(path).is_ok_and(is_same))
}

/// A log file, open for appending. Other monitors may append to it too.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    /// Holds the lock that marks the file as a log.
    lock: Option<File>,
    made: Option<NewFile>,
}

impl LogFile {
    /// Opens or creates a log file.
    ///
    /// # Errors
    /// It is in use as something else, or can't be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (file, made) = open(path, Writing::Appends)?;
        // Not removed on drop: others may be using it by then.
        if let Some(made) = &made {
            made.keep();
        }
        let mut log = Self { file, lock: None, made };
        log.share().inspect_err(|_| log.remove_if_unused())?;
        Ok(log)
    }

    fn share(&mut self) -> io::Result<()> {
        if is_lasting(self.file.metadata()?.file_type()) {
            self.lock = share_log(&self.file)?;
        }
        Ok(())
    }

    /// Removes the file if this log created it, it is empty and no other monitor uses it.
    pub(crate) fn remove_if_unused(&self) {
        if let Some(made) = &self.made
            && !is_log_of_others(self.lock.as_ref().unwrap_or(&self.file))
        {
            made.remove_if_empty();
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The file, if this log created it.
    pub(crate) fn removes(&self) -> Option<PathBuf> {
        self.made.as_ref().map(|made| made.path.clone())
    }
}

fn open(path: &Path, writing: Writing) -> io::Result<(File, Option<NewFile>)> {
    let file = match options(writing).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create(path, writing) {
            // Another program has created it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options(writing).open(path)?,
            created => {
                let file = created.map_err(|error| explain(path, error))?;
                let made = NewFile::find(path, &file)?;
                return Ok((file, Some(made)));
            }
        },
        opened => opened.map_err(|error| explain(path, error))?,
    };
    let found = file.metadata()?;
    refuse_device(&found)?;
    if is_lasting(found.file_type()) {
        refuse_fixed(&file)?;
    }
    Ok((file, None))
}

/// Creates the file, or the one that a link at `path` names, with the mode [`PRIVATE`] whatever the umask.
fn create(path: &Path, writing: Writing) -> io::Result<File> {
    let mut path = path.to_owned();
    // O_EXCL, by which the file is known to be ours, doesn't follow links.
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let file = options(writing).create_new(true).mode(PRIVATE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != PRIVATE {
        // File systems without modes of their own refuse it.
        let _ = file.set_permissions(Permissions::from_mode(PRIVATE));
    }
    Ok(file)
}

/// Refuses a file whose contents the kernel keeps from changing, before any other output is changed: a sealed one, and swap space
/// where the file system reports it without a write.
fn refuse_fixed(file: &File) -> io::Result<()> {
    // The call fails for files that can't have seals.
    if fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & SEALS != 0) {
        return Err(io::Error::other("it is sealed, see memfd_create(2); name another file"));
    }
    match nix::unistd::write(file, &[]) {
        Err(Errno::ETXTBSY) => Err(io::Error::other("it is in use as swap space; name another file")),
        _ => Ok(()),
    }
}

/// Refuses a block device, and the backing file of a loop device. The host may have mounted them, which no lock shows.
pub(crate) fn refuse_device(found: &Metadata) -> io::Result<()> {
    if found.file_type().is_block_device() {
        return Err(io::Error::other("it is a block device; name a file or a pipe"));
    }
    match is_lasting(found.file_type()).then(|| loop_device::over(found)).flatten() {
        Some(device) => Err(io::Error::other(format!(
            "it is the backing file of /dev/{device}; name another file, or detach it, losetup -d /dev/{device}"
        ))),
        None => Ok(()),
    }
}

/// The identity of an output file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An existing file, by its file system and inode.
    There { dev: u64, ino: u64 },
    /// A file that doesn't exist yet, by its path.
    New(PathBuf),
}

impl Place {
    /// The place of an existing file.
    pub(crate) fn of(found: &Metadata) -> Self {
        Self::There { dev: found.dev(), ino: found.ino() }
    }
}

/// Checks that a file can be opened for writing, without opening a pipe or creating a file. Returns its place; `None` for pipes
/// and devices, which can have several writers.
///
/// # Errors
/// It can't be opened for writing, or is in use.
pub(crate) fn look(path: &Path, writing: Writing) -> io::Result<Option<Place>> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return look_at_place(path).map(Some),
        found => found?,
    };
    if found.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    refuse_device(&found)?;
    if !is_lasting(found.file_type()) {
        access(path, AccessFlags::W_OK)?;
        // The error that opening a socket would return.
        return if found.file_type().is_socket() {
            Err(explain(path, Errno::ENXIO.into()))
        } else {
            Ok(None)
        };
    }
    let file = options(writing).open(path)?;
    refuse_fixed(&file)?;
    refuse_use(&file, writing)?;
    Ok(Some(Place::of(&found)))
}

/// The place of a name, without following links: for a socket.
pub(crate) fn look_at_name(path: &Path) -> io::Result<Place> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => look_at_place(path),
        found => Ok(Place::of(&found?)),
    }
}

/// Checks that a file can be created there, and returns its place.
fn look_at_place(path: &Path) -> io::Result<Place> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| explain(path, errno.into()))?;
    Ok(Place::New(directory.canonicalize()?.join(path.file_name().unwrap_or_default())))
}

/// The options for opening an output.
fn options(writing: Writing) -> OpenOptions {
    let mut options = File::options();
    // O_NONBLOCK: a pipe without a reader is an error (ENXIO) instead of a wait.
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    match writing {
        Writing::Replaces => options.write(true),
        Writing::Appends => options.append(true),
    };
    options
}

/// Whether it stores what is written to it.
fn is_lasting(kind: FileType) -> bool {
    kind.is_file()
}

/// Replaces two errors that mislead: ENXIO ("No such device or address") of a pipe or socket, and ENOENT of a missing directory.
fn explain(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound
        && let Some(directory) = missing_directory(path)
    {
        let directory = directory.display();
        return io::Error::other(format!(
            "the directory {directory} doesn't exist: create it, or name another file"
        ));
    }
    if error.raw_os_error() != Some(Errno::ENXIO as i32) {
        return error;
    }
    match fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if kind.is_fifo() => {
            io::Error::other("it is a pipe without a reader; open it for reading first, as cat(1) does")
        }
        Ok(kind) if kind.is_socket() => io::Error::other("it is a socket; name a file or a pipe"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    const IN_USE: &str =
        "it is being written by another console, by --metrics or by another monitor; name another file";

    #[track_caller]
    fn assert_refused<T: std::fmt::Debug>(opened: io::Result<T>, message: &str) {
        assert_eq!(opened.unwrap_err().to_string(), message);
    }

    fn fifo(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    }

    #[test]
    fn file_has_what_was_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        fs::write(&path, "precious").unwrap();
        drop(open_output(&path).unwrap());
        drop(LogFile::open(&path).unwrap());
        assert_eq!(fs::read(path).unwrap(), b"precious");
    }

    #[test]
    fn file_in_use_is_refused_by_any_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let [path, link, hard] = ["new", "link", "hard"].map(|name| dir.path().join(name));
        let output = open_output(&path).unwrap();
        output.1.as_ref().unwrap().keep();
        symlink("new", &link).unwrap();
        fs::hard_link(&path, &hard).unwrap();
        assert_refused(open_output(&path), IN_USE);
        assert_refused(open_output(&link), IN_USE);
        assert_refused(LogFile::open(&hard), IN_USE);
        drop(output);
        open_output(&hard).unwrap();
    }

    /// Two start at the same time: the one that is refused leaves the file to the other.
    #[test]
    fn file_that_was_made_stays_if_another_was_faster_to_lock_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let slower = open(&path, Writing::Replaces).unwrap();
        assert!(slower.1.is_some());
        let theirs = open_output(&path).unwrap();
        assert_refused(settled(&path, slower), IN_USE);
        assert!(path.exists(), "the other one's file");
        drop(theirs);
    }

    #[test]
    fn file_that_was_made_is_locked_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let (file, made) = open_output(&path).unwrap();
        drop(file);
        assert_refused(open_output(&path), IN_USE);
        drop(made);
        assert!(!path.exists());
    }

    #[test]
    fn file_that_is_removed_before_it_is_locked_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        fs::write(&path, "").unwrap();
        let (file, _) = open(&path, Writing::Replaces).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!lock(&path, &file).unwrap());
        fs::write(&path, "another one").unwrap();
        assert!(!lock(&path, &file).unwrap());
        // A file without a name is one by its descriptor.
        let nameless = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert!(lock(nameless.as_ref(), &file).unwrap());
    }

    #[test]
    fn log_is_shared_with_logs_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let logs = [LogFile::open(&path).unwrap(), LogFile::open(&path).unwrap()];
        assert_refused(open_output(&path), "it is in use as a log or as standard output; name another file");
        drop(logs);
        open_output(&path).unwrap();
    }

    #[test]
    fn link_to_nothing_makes_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("new", &link).unwrap();
        let (file, made) = open_output(&link).unwrap();
        assert!(dir.path().join("new").exists());
        drop((file, made));
        assert!(!dir.path().join("new").exists());
        assert!(fs::symlink_metadata(&link).is_ok());
    }

    #[test]
    fn file_that_was_made_goes_if_nothing_is_in_it_and_nobody_kept_it() {
        let dir = tempfile::tempdir().unwrap();
        let [new, written, kept, replaced, old] =
            ["new", "written", "kept", "replaced", "old"].map(|name| dir.path().join(name));
        fs::write(&old, "").unwrap();
        let opened = [&new, &written, &kept, &replaced, &old].map(|path| open_output(path).unwrap());
        fs::write(&written, "x").unwrap();
        opened[2].1.as_ref().unwrap().keep();
        fs::remove_file(&replaced).unwrap();
        fs::write(&replaced, "").unwrap();
        drop(opened);
        let are_there = [&new, &written, &kept, &replaced, &old].map(|path| path.exists());
        assert_eq!(are_there, [false, true, true, true, true]);
    }

    #[test]
    fn log_that_was_made_goes_if_nothing_is_in_it_and_nobody_else_logs_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let ours = LogFile::open(&path).unwrap();
        let other = LogFile::open(&path).unwrap();
        ours.remove_if_unused();
        assert!(path.exists());
        drop(other);
        ours.remove_if_unused();
        assert!(!path.exists());
        let written = LogFile::open(&path).unwrap();
        fs::write(&path, "x").unwrap();
        written.remove_if_unused();
        assert!(path.exists());
    }

    /// With the usual umask, new files would be readable by all users.
    #[test]
    fn file_that_is_made_is_its_users_alone_and_one_that_is_there_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let [new, log, old] = ["new", "log", "old"].map(|name| dir.path().join(name));
        fs::write(&old, "").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
        let _outputs = [&new, &old].map(|path| open_output(path).unwrap());
        LogFile::open(&log).unwrap();
        let modes = [new, log, old].map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o7777);
        assert_eq!(modes, [0o600, 0o600, 0o640]);
    }

    #[test]
    fn pipes_and_devices_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = fifo(&dir);
        let mut reader = File::options();
        let _reader = reader.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&fifo).unwrap();
        let null = Path::new("/dev/null");
        let _outputs = [&fifo, &fifo, null, null].map(|path: &Path| open_output(path).unwrap());
        let _logs = [&fifo, null].map(|path: &Path| LogFile::open(path).unwrap());
    }

    /// As for a standard output that the shell has redirected.
    #[test]
    fn file_is_opened_by_its_descriptor() {
        let stdout = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&stdout));
        let _output = open_output(path.as_ref()).unwrap();
        assert_refused(open_output(path.as_ref()), IN_USE);
    }

    #[test]
    fn pipe_without_a_reader_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = fifo(&dir);
        let message = "it is a pipe without a reader; open it for reading first, as cat(1) does";
        assert_refused(open_output(&fifo), message);
        assert_refused(LogFile::open(&fifo), message);
    }

    /// One of the host's, if there are any. It isn't opened.
    #[test]
    fn block_device_is_refused_as_one() {
        let names = fs::read_dir("/sys/class/block").into_iter().flatten();
        let mut devices = names.map(|entry| Path::new("/dev").join(entry.unwrap().file_name()));
        if let Some(device) = devices.find(|path| path.exists()) {
            assert_refused(look(&device, Writing::Replaces), "it is a block device; name a file or a pipe");
            assert_refused(look(&device, Writing::Appends), "it is a block device; name a file or a pipe");
        }
    }

    #[test]
    fn socket_is_refused_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_refused(open_output(&socket), "it is a socket; name a file or a pipe");
    }
}
