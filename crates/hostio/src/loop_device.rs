//! Loop devices: block devices backed by a file or by another block device. Locks on one aren't visible on
//! the other.
//!
//! A device is asked for its backing file's inode number (LOOP_GET_STATUS64). That also finds a file under
//! another path, a deleted file, and one that this mount namespace doesn't show. For a device that can't be
//! opened, sysfs has a path.

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

/// Where sysfs lists whole block devices, by their names in /dev.
const DISKS: &str = "/sys/block";
/// Where sysfs lists all block devices, by number.
const NUMBERS: &str = "/sys/dev/block";
/// LOOP_MAJOR (Linux, include/uapi/linux/major.h).
const LOOP_MAJOR: u64 = 7;

/// What backs a loop device.
#[derive(Debug)]
pub struct Backing {
    /// The device's own answer.
    status: Option<Status>,
    /// The path in sysfs; `None` if it exceeds 4095 bytes.
    path: Option<PathBuf>,
}

/// The name in /dev of a loop device over the file `found`, or over a block device that shares bytes with it;
/// `None` if none is known.
pub fn over(found: &Metadata) -> Option<String> {
    bound_devices().find(|(_, _, backing)| backing.is(found)).map(|(name, ..)| name)
}

/// What backs the block device `number`, if it is a loop device or a partition of one. `device` is the open
/// device, if there is one.
///
/// # Errors
/// It is a loop device, and neither it nor sysfs says what backs it.
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
        // A loop device without a backing file has no bytes.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => Ok(None),
        // Another driver's device, on a system without sysfs.
        Err(error) if major(number) != LOOP_MAJOR && is_unknown_call(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The block devices from which device mapper, md and the like build device `number`, and which they claim.
pub fn slaves(number: u64) -> Vec<u64> {
    let entries = places_of(number).into_iter().filter_map(|place| read_dir(place.join("slaves")).ok());
    entries.flatten().filter_map(|entry| number_in(&entry.ok()?.path())).collect()
}

/// Opens block device `number` for reading, under any of its names; with `claim`, exclusively (`O_EXCL`).
///
/// # Errors
/// It can't be opened under any name; `EBUSY` if it is claimed already.
pub fn open_device(number: u64, claim: bool) -> io::Result<File> {
    let by_number = PathBuf::from(format!("/dev/block/{}", major_minor(number)));
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
    /// Whether it is this file, or a block device that shares bytes with it.
    pub fn is(&self, found: &Metadata) -> bool {
        let is_same_file = |dev, ino| (dev, ino) == (found.dev(), found.ino());
        if found.file_type().is_block_device() {
            return self.device().is_some_and(|number| share_bytes(number, found.rdev()));
        }
        self.status.is_some_and(|status| is_same_file(status.dev, status.ino))
            || self.look().is_some_and(|other| is_same_file(other.dev(), other.ino()))
    }

    /// The backing block device's number; `None` for a file.
    pub fn device(&self) -> Option<u64> {
        match self.status {
            Some(status) => Some(status.rdev),
            None => self.look().filter(|found| found.file_type().is_block_device()).map(|found| found.rdev()),
        }
        .filter(|number| *number != 0)
    }

    /// The backing file's device and inode numbers, as in stat(2), if known.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.status
            .map(|status| (status.dev, status.ino))
            .or_else(|| self.look().map(|found| (found.dev(), found.ino())))
    }

    /// Opens the backing file for reading, by the path with which it was attached.
    ///
    /// # Errors
    /// It is gone or replaced by another file, or it can't be opened.
    pub fn open_file(&self) -> io::Result<File> {
        let path = self.path.as_deref().ok_or(Errno::ENAMETOOLONG)?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        // The path may now name a pipe.
        if !path.metadata()?.is_file() {
            return Err(Errno::ENOENT.into());
        }
        let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        let is_other =
            self.status.is_some_and(|status| (status.dev, status.ino) != (found.dev(), found.ino()));
        if is_other { Err(Errno::ENOENT.into()) } else { Ok(file) }
    }

    /// Other loop devices, except that of `device`, that share bytes of the same file: names in /dev, and
    /// numbers.
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
    /// The path, or else the numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.status) {
            (Some(path), _) => path.display().fmt(f),
            (None, Some(Status { rdev: 0, dev, ino, .. })) => {
                write!(f, "inode {ino} of {}", major_minor(dev))
            }
            (None, Some(Status { rdev, .. })) => write!(f, "block device {}", major_minor(rdev)),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// The loop devices with a backing file: name in /dev, number, and backing.
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

/// Whether the error means that the device doesn't support the ioctl.
fn is_unknown_call(error: &io::Error) -> bool {
    [Errno::ENOTTY, Errno::EINVAL, Errno::ENOENT]
        .iter()
        .any(|code| error.raw_os_error() == Some(*code as i32))
}

/// Whether two block devices are the same, or one is a partition of the other.
fn share_bytes(one: u64, other: u64) -> bool {
    one == other || disk_of(one) == Some(other) || disk_of(other) == Some(one)
}

/// The disk of partition `number`.
fn disk_of(number: u64) -> Option<u64> {
    let place = place_of(number).filter(|place| place.join("partition").exists())?;
    number_in(place.parent()?)
}

/// The sysfs directory of a device and, for a partition, that of its disk.
fn places_of(number: u64) -> Vec<PathBuf> {
    let Some(place) = place_of(number) else { return Vec::new() };
    let disk = place.parent().filter(|_| place.join("partition").exists()).map(Path::to_owned);
    [Some(place), disk].into_iter().flatten().collect()
}

/// The sysfs directory of a device: .../block/loop0, or .../block/loop0/loop0p1 for a partition.
fn place_of(number: u64) -> Option<PathBuf> {
    Path::new(NUMBERS).join(major_minor(number)).canonicalize().ok()
}

fn major_minor(number: u64) -> String {
    format!("{}:{}", major(number), minor(number))
}

/// The device number in a sysfs directory.
fn number_in(place: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(place.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel's name of the device's node.
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
    // A path may contain any byte but NUL, and end in a newline of its own.
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

    /// As if the device can't be opened, or reports numbers that differ from stat(2)'s.
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

    /// Another file of that name, which doesn't back the device.
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
