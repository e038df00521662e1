//! Loop devices: block devices whose bytes are those of a file. A lock on one of both isn't seen at the other.

use std::ffi::OsStr;
use std::fs::{Metadata, read, read_dir};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Where the kernel lists block devices, by their names in /dev.
const DEVICES: &str = "/sys/block";

/// The name in /dev of a loop device whose backing file is this one; `None` if none is known. A backing file that has no name any
/// more, or none that this process can see, isn't known.
pub fn over(file: &Metadata) -> Option<String> {
    let names = read_dir(DEVICES).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("loop")).find(|name| {
        let backing = backing_file(&Path::new(DEVICES).join(name));
        let same = |other: Metadata| (other.dev(), other.ino()) == (file.dev(), file.ino());
        backing.is_some_and(|path| path.metadata().is_ok_and(same))
    })
}

/// The backing file of this block device, or of the one that it is a partition of; `None` if it is no loop device.
pub fn below(device: &Metadata) -> Option<PathBuf> {
    let number = format!("{}:{}", major(device.rdev()), minor(device.rdev()));
    let device = Path::new("/sys/dev/block").join(number);
    // A link to .../block/loop0, or for a partition .../block/loop0/loop0p1.
    let place = device.canonicalize().ok()?;
    backing_file(&place).or_else(|| backing_file(place.parent()?))
}

fn backing_file(device: &Path) -> Option<PathBuf> {
    let line = read(device.join("loop/backing_file")).ok()?;
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
            backing_file(device.path()).unwrap().into_os_string().into_vec()
        };
        assert_eq!(read(b"/a b/disk.img\n"), b"/a b/disk.img");
        assert_eq!(read(b"/caf\xe9.img\n\n"), b"/caf\xe9.img\n");
    }
}
