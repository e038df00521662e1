//! Loop devices: block devices whose bytes are those of a file or of another block device. A lock on one isn't seen at the other.
//!
//! A device is asked for the number of its file (LOOP_GET_STATUS64), which finds a file of any path, one that was deleted, and one
//! that this mount namespace has no name for. A device that can't be opened is known by the path in sysfs.

mod status;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata, read, read_dir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, makedev, minor};

use self::status::{Status, status};

/// Where the kernel lists whole block devices, by their names in /dev.
const DISKS: &str = "/sys/block";
/// Where it lists all block devices, by their numbers.
const NUMBERS: &str = "/sys/dev/block";
/// LOOP_MAJOR (Linux, include/uapi/linux/major.h).
const LOOP_MAJOR: u64 = 7;

/// What a loop device takes its bytes from.
#[derive(Debug)]
pub struct Backing {
    /// What the device says.
    status: Option<Status>,
    /// What sysfs says; nothing if the path has more than 4095 bytes.
    path: Option<PathBuf>,
}

/// The name in /dev of a loop device over this file, or over a block device that shares bytes with this one; `None` if none is
/// known.
pub fn over(found: &Metadata) -> Option<String> {
    bound_devices().find(|(_, _, backing)| backing.is(found)).map(|(name, ..)| name)
}

/// What the block device of this number is over, if it is a loop device or a partition of one. `device` is the device itself, if it
/// is open.
///
/// # Errors
/// It is a loop device, and neither it nor sysfs says what it is over.
pub fn below(number: u64, device: Option<&File>) -> io::Result<Option<Backing>> {
    let places = places_of(number);
    let place = places.iter().find(|place| place.join("loop").is_dir());
    let is_known_as_other = place.is_none() && !places.is_empty();
    if is_known_as_other && major(number) != LOOP_MAJOR {
        return Ok(None);
    }
    let path = place.and_then(|place| backing_path(place));
    let asked = device.map_or_else(|| Err(Errno::ENOENT.into()), status);
    match asked {
        Ok(status) => Ok(Some(Backing { status: Some(status), path })),
        Err(_) if path.is_some() => Ok(Some(Backing { status: None, path })),
        // It has no file, and no bytes.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => Ok(None),
        // A device of another driver, where there is no sysfs.
        Err(error) if major(number) != LOOP_MAJOR && is_unknown_call(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The block devices that the one of this number is made of by device mapper, md or the like, which claim them.
pub fn slaves(number: u64) -> Vec<u64> {
    let entries = places_of(number).into_iter().filter_map(|place| read_dir(place.join("slaves")).ok());
    entries.flatten().filter_map(|entry| number_in(&entry.ok()?.path())).collect()
}

/// Opens the block device of this number to read, or to claim it too (`O_EXCL`), by any of its names.
///
/// # Errors
/// None of them can be opened; `EBUSY` if somebody else has claimed it.
pub fn open_device(number: u64, claim: bool) -> io::Result<File> {
    let by_number = PathBuf::from(format!("/dev/block/{}", written(number)));
    let mut error = io::Error::from(Errno::ENOENT);
    for path in name_in_dev(number).into_iter().chain([by_number]) {
        match open_node(&path, number, claim) {
            Ok(device) => return Ok(device),
            Err(found) if found.kind() == io::ErrorKind::NotFound => {}
            Err(found) => error = found,
        }
    }
    Err(error)
}

impl Backing {
    /// Whether it is this file, or a block device that shares bytes with this one.
    pub fn is(&self, found: &Metadata) -> bool {
        let is_same_file = |dev, ino| (dev, ino) == (found.dev(), found.ino());
        if found.file_type().is_block_device() {
            return self.device().is_some_and(|number| share_bytes(number, found.rdev()));
        }
        self.status.is_some_and(|status| is_same_file(status.dev, status.ino))
            || self.look().is_some_and(|other| is_same_file(other.dev(), other.ino()))
    }

    /// The number of the block device that it is; `None` for a file.
    pub fn device(&self) -> Option<u64> {
        match self.status {
            Some(status) => Some(status.rdev),
            None => self.look().filter(|found| found.file_type().is_block_device()).map(|found| found.rdev()),
        }
        .filter(|number| *number != 0)
    }

    /// The numbers of the file's file system and of the file, as stat(2) has them, if it is known.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.status
            .map(|status| (status.dev, status.ino))
            .or_else(|| self.look().map(|found| (found.dev(), found.ino())))
    }

    /// The file, open to read, by the name that it was attached by.
    ///
    /// # Errors
    /// It isn't there any more, another file is, or it can't be opened.
    pub fn open_file(&self) -> io::Result<File> {
        let path = self.path.as_deref().ok_or(Errno::ENAMETOOLONG)?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        // What has taken its place may be a pipe.
        if !path.metadata()?.is_file() {
            return Err(Errno::ENOENT.into());
        }
        let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        let is_other =
            self.status.is_some_and(|status| (status.dev, status.ino) != (found.dev(), found.ino()));
        if is_other { Err(Errno::ENOENT.into()) } else { Ok(file) }
    }

    /// The other loop devices that have bytes of the same file, by their names in /dev. `disk` is the number of the device that has
    /// this one.
    pub fn others(&self, device: u64) -> Vec<(String, u64)> {
        let own = disk_of(device).unwrap_or(device);
        let Some(file) = self.file() else { return Vec::new() };
        let shares = |other: &Self| match (self.status, other.status) {
            (Some(own), Some(status)) => own.overlaps(&status),
            _ => true,
        };
        bound_devices()
            .filter(|(_, number, other)| *number != own && other.file() == Some(file) && shares(other))
            .map(|(name, number, _)| (name, number))
            .collect()
    }

    fn look(&self) -> Option<Metadata> {
        self.path.as_deref()?.metadata().ok()
    }
}

impl fmt::Display for Backing {
    /// Its path, or its numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.status) {
            (Some(path), _) => path.display().fmt(f),
            (None, Some(Status { rdev: 0, dev, ino, .. })) => write!(f, "inode {ino} of {}", written(dev)),
            (None, Some(Status { rdev, .. })) => write!(f, "block device {}", written(rdev)),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// The loop devices that have a backing file: their names in /dev, their numbers, and what they are over.
fn bound_devices() -> impl Iterator<Item = (String, u64, Backing)> {
    let entries = read_dir(DISKS).into_iter().flatten();
    entries.filter_map(|entry| {
        let (place, name) = entry.ok().map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.into_string().ok().filter(|name| name.starts_with("loop"))?;
        if !place.join("loop").is_dir() {
            return None;
        }
        let number = number_in(&place)?;
        let status = open_device(number, false).and_then(|device| status(&device)).ok();
        Some((name, number, Backing { status, path: backing_path(&place) }))
    })
}

/// Whether the errors of a call say that the device doesn't know it.
fn is_unknown_call(error: &io::Error) -> bool {
    [Errno::ENOTTY, Errno::EINVAL, Errno::ENOENT]
        .iter()
        .any(|code| error.raw_os_error() == Some(*code as i32))
}

/// Whether two block devices are the same, or one is a partition of the other.
fn share_bytes(one: u64, other: u64) -> bool {
    one == other || disk_of(one) == Some(other) || disk_of(other) == Some(one)
}

/// The number of the disk that the device of this number is a partition of.
fn disk_of(number: u64) -> Option<u64> {
    let place = place_of(number).filter(|place| place.join("partition").exists())?;
    number_in(place.parent()?)
}

/// Where sysfs has this device, and if it is a partition, its disk.
fn places_of(number: u64) -> Vec<PathBuf> {
    let Some(place) = place_of(number) else { return Vec::new() };
    let disk = place.parent().filter(|_| place.join("partition").exists()).map(Path::to_owned);
    [Some(place), disk].into_iter().flatten().collect()
}

/// A link to .../block/loop0, or for a partition .../block/loop0/loop0p1.
fn place_of(number: u64) -> Option<PathBuf> {
    Path::new(NUMBERS).join(written(number)).canonicalize().ok()
}

fn written(number: u64) -> String {
    format!("{}:{}", major(number), minor(number))
}

/// The number of the device that is at this place of sysfs.
fn number_in(place: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(place.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// What the kernel calls the node of this device.
fn name_in_dev(number: u64) -> Option<PathBuf> {
    let text = std::fs::read_to_string(place_of(number)?.join("uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

fn open_node(path: &Path, number: u64, claim: bool) -> io::Result<File> {
    let is_it = |found: &Metadata| found.file_type().is_block_device() && found.rdev() == number;
    if !is_it(&path.metadata()?) {
        return Err(Errno::ENOENT.into());
    }
    let mut flags = OFlag::O_NONBLOCK;
    if claim {
        flags |= OFlag::O_EXCL;
    }
    let device = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if is_it(&device.metadata()?) { Ok(device) } else { Err(Errno::ENOENT.into()) }
}

fn backing_path(place: &Path) -> Option<PathBuf> {
    let line = read(place.join("loop/backing_file")).ok()?;
    // A path may hold any byte but NUL, and end in a newline of its own.
    let path = line.strip_suffix(b"\n").unwrap_or(&line);
    Some(Path::new(OsStr::from_bytes(path)).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn backing_file_of_any_name_is_read() {
        let device = tempfile::tempdir().unwrap();
        std::fs::create_dir(device.path().join("loop")).unwrap();
        let read = |line: &[u8]| {
            std::fs::write(device.path().join("loop/backing_file"), line).unwrap();
            backing_path(device.path()).unwrap().into_os_string().into_vec()
        };
        assert_eq!(read(b"/a b/disk.img\n"), b"/a b/disk.img");
        assert_eq!(read(b"/caf\xe9.img\n\n"), b"/caf\xe9.img\n");
    }

    /// As where the device can't be opened, or its numbers aren't those of stat(2).
    #[test]
    fn backing_file_is_known_by_its_numbers_or_by_its_path() {
        let (file, other) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let (found, others) = (file.as_file().metadata().unwrap(), other.as_file().metadata().unwrap());
        let status = |found: &Metadata| {
            Some(Status { dev: found.dev(), ino: found.ino(), rdev: 0, offset: 0, size_limit: 0 })
        };
        let path = |file: &tempfile::NamedTempFile| Some(file.path().to_owned());
        assert!(Backing { status: None, path: path(&file) }.is(&found));
        assert!(Backing { status: status(&found), path: None }.is(&found));
        assert!(Backing { status: status(&others), path: path(&file) }.is(&found));
        assert!(!Backing { status: status(&others), path: path(&other) }.is(&found));
        assert!(!Backing { status: None, path: None }.is(&found));
    }

    /// Another file of that name, which the device doesn't have.
    #[test]
    fn backing_file_is_opened_only_if_it_is_the_devices() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = file.as_file().metadata().unwrap();
        let status = |ino| Some(Status { dev: found.dev(), ino, rdev: 0, offset: 0, size_limit: 0 });
        let path = Some(file.path().to_owned());
        assert!(Backing { status: status(found.ino()), path: path.clone() }.open_file().is_ok());
        assert!(Backing { status: status(found.ino() + 1), path }.open_file().is_err());
    }
}
