//! Whether a disk's files are as they were when its state was saved.
//!
//! A restored guest has cached parts of its disk, so it destroys a file system that has changed meanwhile. The modification time
//! and the length detect that: every write sets the time. An unchanged copy is as good as the file itself, and clones need one.
//! So another file is accepted if it has the same length and time, which `cp --preserve=timestamps` keeps; a copy without its time
//! can't be distinguished from other contents, and is refused. The device and inode number only serve the message.
//!
//! Not detected are writers that set the time back, and writes soon after the save on a file system whose times are coarser than a
//! tick of the kernel's clock, such as FAT. A block device has no modification time: only its number and length are compared.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{major, minor};
use nix::time::{ClockId, clock_gettime};
use vmm_virtio::{FieldReader, FieldWriter, StateError};

const NS_PER_S: i128 = 1_000_000_000;
/// Longest tick of the kernel's clock in ns, with CONFIG_HZ=100.
const TICK_MAX_NS: i128 = 10_000_000;

/// Kinds of stamps.
const REGULAR: u8 = 0;
const DEVICE: u8 = 1;

/// A file that a disk reads, and its path for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct StampedFile<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
}

/// What identifies the contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Regular {
        /// Number of the device that has the file, and of the file's inode there.
        dev: u64,
        ino: u64,
        /// In bytes.
        len: u64,
        /// Nanoseconds since 1970, or before it.
        mtime_ns: i128,
    },
    Device {
        /// Number of the block device.
        rdev: u64,
        /// In bytes.
        len: u64,
    },
}

impl Stamp {
    fn of(mut file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        if found.file_type().is_block_device() {
            // Nothing reads or writes at the file's position.
            return Ok(Self::Device { rdev: found.rdev(), len: file.seek(SeekFrom::End(0))? });
        }
        let mtime_ns = i128::from(found.mtime()) * NS_PER_S + i128::from(found.mtime_nsec());
        Ok(Self::Regular { dev: found.dev(), ino: found.ino(), len: found.len(), mtime_ns })
    }

    pub(super) fn save(&self, fields: &mut FieldWriter) {
        match *self {
            Self::Regular { dev, ino, len, mtime_ns } => {
                fields.u8(REGULAR);
                fields.u64(dev);
                fields.u64(ino);
                fields.u64(len);
                fields.array(&mtime_ns.to_le_bytes());
            }
            Self::Device { rdev, len } => {
                fields.u8(DEVICE);
                fields.u64(rdev);
                fields.u64(len);
            }
        }
    }

    pub(super) fn load(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        match fields.u8("kind")? {
            REGULAR => Ok(Self::Regular {
                dev: fields.u64("dev")?,
                ino: fields.u64("ino")?,
                len: fields.u64("len")?,
                mtime_ns: i128::from_le_bytes(fields.array("mtime")?),
            }),
            DEVICE => Ok(Self::Device { rdev: fields.u64("rdev")?, len: fields.u64("len")? }),
            other => {
                Err(StateError::new("kind", format!("{other} is neither a file's nor a block device's")))
            }
        }
    }

    /// Whether a file with this stamp has the contents of one with the other's, as far as can be told.
    fn agrees(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Regular { len, mtime_ns, .. }, Self::Regular { len: other_len, mtime_ns: other, .. }) => {
                (len, mtime_ns) == (other_len, other)
            }
            (Self::Device { .. }, Self::Device { .. }) => self == other,
            _ => false,
        }
    }

    /// Why the file at `path`, which has this stamp now, isn't the one that had `then`.
    fn difference(&self, then: &Self, path: &Path) -> String {
        let path = path.display();
        match (*self, *then) {
            (Self::Regular { dev, ino, .. }, Self::Regular { dev: then_dev, ino: then_ino, .. })
                if (dev, ino) == (then_dev, then_ino) =>
            {
                format!(
                    "{path} was written after the snapshot (then {then}, now {self}): set \"path\" to a copy from that \
                     time, or take snapshots with --disks or --stop"
                )
            }
            (Self::Regular { .. }, Self::Regular { .. }) => format!(
                "{path} is another file than at the snapshot, and not an unchanged copy as far as can be known (then {then}, now \
                 {self}): copy with cp --preserve=timestamps"
            ),
            _ => format!(
                "{path} is {}, at the snapshot it was {}: set \"path\" to that one",
                self.noun(),
                then.noun()
            ),
        }
    }

    fn noun(&self) -> String {
        match self {
            Self::Regular { .. } => "a regular file".to_owned(),
            Self::Device { rdev, len } => {
                format!("block device {}:{} of {len} bytes", major(*rdev), minor(*rdev))
            }
        }
    }

    /// Waits until a write would give the file another modification time: the kernel sets that to the clock's last tick, so all
    /// writes within a tick have the same.
    fn wait_for_tick(&self) {
        let Self::Regular { mtime_ns, .. } = *self else { return };
        // A tick or two, in steps of a millisecond. A time further ahead was set by somebody, or the clock was set back.
        for _ in 0..2 * TICK_MAX_NS / 1_000_000 {
            let Ok(now) = clock_gettime(ClockId::CLOCK_REALTIME_COARSE) else { return };
            let now_ns = i128::from(now.tv_sec()) * NS_PER_S + i128::from(now.tv_nsec());
            if now_ns > mtime_ns || mtime_ns - now_ns > TICK_MAX_NS {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Regular { len, mtime_ns, .. } => {
                write!(formatter, "{len} bytes, mtime {}", Time(mtime_ns))
            }
            Self::Device { rdev, len } => {
                write!(formatter, "block device {}:{}, {len} bytes", major(rdev), minor(rdev))
            }
        }
    }
}

/// Nanoseconds since 1970, in seconds as `stat -c %.9Y` prints them.
struct Time(i128);

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.0.div_euclid(NS_PER_S), self.0.rem_euclid(NS_PER_S));
        write!(formatter, "{seconds}.{ns:09}")
    }
}

/// The stamps of `files`, each of which is different after any later write. Waits some milliseconds if a file has just been written.
///
/// # Errors
/// A file can't be examined.
pub(super) fn take(files: &[StampedFile<'_>]) -> Result<Vec<Stamp>, String> {
    let stamps = now(files)?;
    stamps.iter().for_each(Stamp::wait_for_tick);
    Ok(stamps)
}

/// The stamps as a snapshot's manifest has them, for people: of each file the device, inode, length and modification time.
pub(super) fn text(stamps: &[Stamp]) -> String {
    let one = |stamp: &Stamp| match *stamp {
        Stamp::Regular { dev, ino, len, mtime_ns } => {
            format!("{}:{} {ino} {len} {}", major(dev), minor(dev), Time(mtime_ns))
        }
        Stamp::Device { .. } => stamp.to_string(),
    };
    stamps.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether all files are as they were, as far as can be told.
pub(super) fn agree(now: &[Stamp], then: &[Stamp]) -> bool {
    now.len() == then.len() && now.iter().zip(then).all(|(now, then)| now.agrees(then))
}

/// Compares `files` with the stamps that they had when the state was saved.
///
/// # Errors
/// A file has changed, or isn't known not to have.
pub(super) fn check(files: &[StampedFile<'_>], then: &[Stamp]) -> Result<(), StateError> {
    let refused = |problem| StateError::new("stamp", problem);
    if files.len() != then.len() {
        let problem = format!("was of {} files, this disk has {}", then.len(), files.len());
        return Err(refused(problem));
    }
    let now = now(files).map_err(refused)?;
    for ((now, then), StampedFile { path, .. }) in now.iter().zip(then).zip(files) {
        if !now.agrees(then) {
            return Err(refused(now.difference(then, path)));
        }
    }
    Ok(())
}

fn now(files: &[StampedFile<'_>]) -> Result<Vec<Stamp>, String> {
    let stamp = |of: &StampedFile<'_>| {
        Stamp::of(of.file).map_err(|error| format!("{} can't be examined: {error}", of.path.display()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Modified half a second before 1970, as `touch -d` can set it.
    const OLD: Stamp = Stamp::Regular { dev: 1, ino: 2, len: 512, mtime_ns: -500_000_000 };
    /// A loop device.
    const LOOP: Stamp = Stamp::Device { rdev: 0x700, len: 512 };

    fn difference(now: Stamp, then: Stamp) -> String {
        assert!(!now.agrees(&then));
        now.difference(&then, Path::new("a.img"))
    }

    #[test]
    fn same_file_of_another_time_is_said_to_be_written() {
        assert_eq!(
            difference(Stamp::Regular { dev: 1, ino: 2, len: 1024, mtime_ns: 1_000_000_002 }, OLD),
            "a.img was written after the snapshot (then 512 bytes, mtime -1.500000000, now 1024 bytes, mtime 1.000000002): set \"path\" to a copy from that time, or take snapshots with --disks or --stop"
        );
    }

    #[test]
    fn other_file_of_another_time_or_length_is_not_a_known_copy() {
        assert_eq!(
            difference(Stamp::Regular { dev: 1, ino: 3, len: 512, mtime_ns: 1_000_000_002 }, OLD),
            "a.img is another file than at the snapshot, and not an unchanged copy as far as can be known (then 512 bytes, \
             mtime -1.500000000, now 512 bytes, mtime 1.000000002): copy with cp --preserve=timestamps"
        );
        let longer = Stamp::Regular { dev: 2, ino: 2, len: 1024, mtime_ns: -500_000_000 };
        assert!(difference(longer, OLD).starts_with("a.img is another file than at the snapshot"));
    }

    #[test]
    fn stamps_are_described_in_the_order_of_the_files() {
        assert_eq!(text(&[OLD, LOOP]), "0:1 2 512 -1.500000000, block device 7:0, 512 bytes");
    }

    #[test]
    fn other_file_of_the_same_time_and_length_is_a_copy() {
        assert!(Stamp::Regular { dev: 3, ino: 4, len: 512, mtime_ns: -500_000_000 }.agrees(&OLD));
    }

    #[test]
    fn block_device_is_its_number_and_length() {
        assert!(LOOP.agrees(&Stamp::Device { rdev: 0x700, len: 512 }));
        let then = "at the snapshot it was block device 7:0 of 512 bytes: set \"path\" to that one";
        assert_eq!(
            difference(Stamp::Device { rdev: 0x701, len: 512 }, LOOP),
            format!("a.img is block device 7:1 of 512 bytes, {then}")
        );
        assert_eq!(
            difference(Stamp::Device { rdev: 0x700, len: 1024 }, LOOP),
            format!("a.img is block device 7:0 of 1024 bytes, {then}")
        );
        assert_eq!(difference(OLD, LOOP), format!("a.img is a regular file, {then}"));
    }

    #[test]
    fn disk_of_another_number_of_files_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let files = [StampedFile { file: &file, path: Path::new("a.img") }];
        let stamps = take(&files).unwrap();
        assert_eq!(check(&files, &stamps), Ok(()));
        assert_eq!(
            check(&files, &[stamps[0], LOOP]).unwrap_err().to_string(),
            "stamp: was of 2 files, this disk has 1"
        );
        assert!(agree(&stamps, &stamps) && !agree(&stamps, &[stamps[0], LOOP]));
    }

    /// The kernel's clock is behind the one that is read here until its next tick, when writes get a later time.
    #[test]
    fn stamp_of_a_file_just_written_waits_for_the_next_tick() {
        let file = tempfile::tempfile().unwrap();
        let written = SystemTime::now();
        file.set_modified(written).unwrap();
        take(&[StampedFile { file: &file, path: Path::new("a.img") }]).unwrap();
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
        let written = written.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(Duration::from(now) > written, "{now} is still {written:?}");
    }

    /// Nobody waits until a time to which the clock may take years.
    #[test]
    fn stamp_of_a_file_of_the_future_waits_for_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(1 << 30)).unwrap();
        let files = [StampedFile { file: &file, path: Path::new("a.img") }];
        let stamps = take(&files).unwrap();
        assert_eq!(check(&files, &stamps), Ok(()));
    }

    #[test]
    fn stamp_of_no_known_kind_is_refused() {
        let error = Stamp::load(&mut FieldReader::new(&[2; 64])).unwrap_err();
        assert_eq!(error.to_string(), "kind: 2 is neither a file's nor a block device's");
    }
}
