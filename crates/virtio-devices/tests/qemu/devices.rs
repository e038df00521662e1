//! Block devices. A lock applies to one node of a device; a writer's claim applies to the device.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Trial};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use tempfile::TempDir;
use vmm_hostio::range_lock::{self, DOES, FORBIDS, LockKind, WRITE};

use crate::disk::*;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("device_that_is_read_only_is_refused_for_writing", read_only),
        trial("device_written_by_two_nodes_is_refused", two_writers),
        trial("device_read_by_two_nodes_is_opened", two_readers),
        trial("device_with_a_partition_in_use_is_refused_for_writing", partition),
        trial("device_that_is_mounted_is_refused_for_writing", mounted),
        trial("device_written_past_the_page_cache_is_its_own", direct),
        trial("device_zeroes_ranges_smaller_than_its_sectors_too", unaligned_zeros),
        trial("device_zeroes_and_discards_what_was_just_written", written_pages),
        trial("device_and_its_backing_file_are_not_both_written", backing_file),
        trial("backing_file_of_a_path_that_sysfs_cannot_show_is_known", long_path),
        trial("backing_file_that_has_lost_its_name_is_known", deleted),
        trial("device_and_one_over_it_are_not_both_written", device_over_device),
        trial("device_and_one_over_a_partition_of_it_are_not_both_written", device_over_partition),
        trial("device_over_a_device_holds_all_that_is_below", layers_are_held),
        trial("device_over_a_device_is_refused_while_something_below_is_in_use", layers_in_use),
        mapped_trial("device_over_a_mapped_device_is_refused_while_its_file_is_in_use", mapped_layers_in_use),
        trial("devices_over_one_file_are_not_both_written", same_file),
        trial("devices_over_parts_of_one_file_are_both_written", parts_of_a_file),
        trial("partitions_of_one_device_are_both_written", partitions),
    ]
}

/// A test with a loop device, ignored if there is none: not all hosts have them, and few permit ordinary
/// users.
pub(crate) fn trial(name: &'static str, test: fn(&LoopDevice)) -> Trial {
    Trial::ignorable_test(name, move || match LoopDevice::new() {
        Ok(device) => {
            test(&device);
            Ok(Completion::Completed)
        }
        Err(why) => Ok(Completion::ignored_with(why)),
    })
}

/// The same with a device-mapper device on top of it.
fn mapped_trial(name: &'static str, test: fn(&LoopDevice, &MappedDevice)) -> Trial {
    Trial::ignorable_test(name, move || {
        let devices = LoopDevice::new().and_then(|device| Ok((MappedDevice::new(&device)?, device)));
        match devices {
            Ok((mapped, device)) => {
                test(&device, &mapped);
                Ok(Completion::Completed)
            }
            Err(why) => Ok(Completion::ignored_with(why)),
        }
    })
}

/// A block device of 16 MiB, and a second node of it.
pub(crate) struct LoopDevice {
    directory: TempDir,
    pub(crate) path: PathBuf,
}

impl LoopDevice {
    fn new() -> Result<Self, String> {
        let directory = TempDir::new().unwrap();
        let image = directory.path().join("disk.img");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let path = losetup(&["--show", "--find", "--partscan", image.to_str().unwrap()])?.into();
        let device = Self { directory, path };
        let number = nix::sys::stat::stat(&device.path).unwrap().st_rdev;
        make_node(&device.other(), number)?;
        // A file system mounted with nodev.
        File::open(device.other()).map_err(|error| format!("a node of a device: {error}"))?;
        Ok(device)
    }

    fn partition(&self) -> PathBuf {
        self.partition_at(1, "2048")
    }

    /// A node of a new partition of 1 MiB. The kernel needs no partition table for that.
    fn partition_at(&self, index: u32, sector: &str) -> PathBuf {
        run("addpart", &[self.path.to_str().unwrap(), &index.to_string(), sector, "2048"]).unwrap();
        let disk = self.path.file_name().unwrap().to_str().unwrap();
        let number = std::fs::read_to_string(format!("/sys/block/{disk}/{disk}p{index}/dev")).unwrap();
        let node = self.directory.path().join(format!("partition{index}"));
        make_node(&node, parse_number(&number)).unwrap();
        node
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    /// Resizes it.
    pub(crate) fn set_len(&self, len: u64) {
        File::options().write(true).open(self.file()).unwrap().set_len(len).unwrap();
        losetup(&["--set-capacity", self.path.to_str().unwrap()]).unwrap();
    }

    fn other(&self) -> PathBuf {
        self.directory.path().join("other")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = losetup(&["--detach", self.path.to_str().unwrap()]);
    }
}

/// A device-mapper device of 1 MiB of a loop device, with a node in that one's directory: without udev there
/// is no other.
struct MappedDevice {
    name: String,
    node: PathBuf,
}

impl MappedDevice {
    fn new(below: &LoopDevice) -> Result<Self, String> {
        let (name, node) =
            (format!("vmm-test-{}", std::process::id()), below.directory.path().join("mapped"));
        let table = format!("0 2048 linear {} 0", below.path.display());
        run("dmsetup", &["--noudevsync", "create", &name, "--table", &table])?;
        let device = Self { name, node };
        let number =
            run("dmsetup", &["info", "--columns", "--noheadings", "-o", "major,minor", &device.name])?;
        make_node(&device.node, parse_number(&number))?;
        Ok(device)
    }
}

impl Drop for MappedDevice {
    fn drop(&mut self) {
        let _ = run("dmsetup", &["--noudevsync", "remove", &self.name]);
    }
}

/// A loop device backed by any file.
struct BackedLoopDevice(PathBuf);

impl BackedLoopDevice {
    fn new(below: &Path) -> Self {
        Self::with(&[], below)
    }

    fn with(options: &[&str], below: &Path) -> Self {
        let arguments = [&["--show", "--find"], options, &[below.to_str().unwrap()]].concat();
        Self(losetup(&arguments).unwrap().into())
    }
}

impl Drop for BackedLoopDevice {
    fn drop(&mut self) {
        let _ = losetup(&["--detach", self.0.to_str().unwrap()]);
    }
}

fn read_only(device: &LoopDevice) {
    let over = BackedLoopDevice::with(&["--read-only"], &device.path);
    let open = |read_only| try_open(json!({"path": over.0, "format": "raw", "read_only": read_only}));
    let path = over.0.display();
    assert_eq!(
        open(false).map(drop).unwrap_err().to_string(),
        format!(".path: {path} is read-only but \"read_only\" is false, set that or let it be written")
    );
    assert!(open(true).is_ok());
}

/// fallocate(2) refuses such ranges. A refusal is no lost write, after which all others would fail.
fn unaligned_zeros(device: &LoopDevice) {
    let image = device.directory.path().join("4k.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let over = BackedLoopDevice::with(&["--sector-size", "4096"], &image);
    for (io, unmap) in [("io_uring", 0), ("io_uring", 1), ("threads", 0), ("threads", 1)] {
        let mut disk = start(json!({"path": over.0, "format": "raw", "cache": "writethrough", "io": io}));
        assert_eq!(send(&mut disk, OUT, 0, &[7; 16 * 512]), OK);
        assert_eq!(send(&mut disk, WRITE_ZEROES, 0, &segment(3, 10, unmap)), OK, "{io} {unmap}");
        let (bytes, status) = read(&mut disk, 0, 16 * 512);
        let expected = [vec![7; 3 * 512], vec![0; 10 * 512], vec![7; 3 * 512]].concat();
        assert!(status == OK && bytes == expected, "{io} {unmap}");
        assert_eq!(send(&mut disk, DISCARD, 0, &segment(3, 1, 0)), IOERR);
        assert_eq!(send(&mut disk, OUT, 0, &[8; 512]), OK);
        assert_eq!(send(&mut disk, FLUSH, 0, &[]), OK);
    }
}

/// Linux refuses it for pages that aren't written back yet, unless it is asked through the open file that has claimed the device.
fn written_pages(device: &LoopDevice) {
    for (io, direct) in [("io_uring", false), ("io_uring", true), ("threads", false), ("threads", true)] {
        let mut disk = start(json!({"path": device.path, "format": "raw", "io": io, "direct": direct}));
        let zeroed = |page: u64| page % 3 < 2;
        for page in 0..96 {
            // Without the alignment of O_DIRECT, so through the page cache.
            let sectors = if direct { 1..2 } else { 0..8 };
            let bytes = vec![7; sectors.clone().count() * 512];
            assert_eq!(send(&mut disk, OUT, page * 8 + sectors.start, &bytes), OK);
            let (request, flags) = if zeroed(page) { (WRITE_ZEROES, page % 3) } else { (DISCARD, 0) };
            assert_eq!(
                send(&mut disk, request, 0, &segment(page * 8, 8, flags as u32)),
                OK,
                "{io} {direct} {page}"
            );
        }
        for page in (0..96).filter(|page| zeroed(*page)) {
            assert_eq!(read(&mut disk, page * 8, 4096), (vec![0; 4096], OK), "{io} {direct} {page}");
        }
    }
}

/// Parses a text such as "7:0".
fn parse_number(text: &str) -> u64 {
    let (major, minor) = text.trim().split_once(':').unwrap();
    makedev(major.parse().unwrap(), minor.parse().unwrap())
}

fn make_node(path: &Path, number: u64) -> Result<(), String> {
    mknod(path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number)
        .map_err(|error| format!("mknod: {error}"))
}

fn losetup(arguments: &[&str]) -> Result<String, String> {
    run("losetup", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The message for a device that can't be opened, with PATH for its path.
fn refusal(path: &Path, more: serde_json::Value) -> String {
    let error = try_open(fields(path, more)).err().expect("it is refused");
    error.to_string().replace(path.to_str().unwrap(), "PATH")
}

fn fields(path: &Path, mut more: serde_json::Value) -> serde_json::Value {
    more["path"] = json!(path);
    more
}

const BUSY: &str = ".path: PATH is in use by the host (mounted, as swap or in a volume), or by another program or device of \
                    this machine: see lsblk(8) and free it, or set \"read_only\"";

fn two_writers(device: &LoopDevice) {
    let first = try_open(fields(&device.path, json!({}))).unwrap();
    assert_eq!(refusal(&device.other(), json!({})), BUSY);
    assert_eq!(refusal(&device.path, json!({})), BUSY);
    drop(first);
    assert!(try_open(fields(&device.other(), json!({}))).is_ok());
}

fn two_readers(device: &LoopDevice) {
    let _first = try_open(fields(&device.path, json!({"read_only": true}))).unwrap();
    assert!(try_open(fields(&device.other(), json!({"read_only": true}))).is_ok());
    assert!(try_open(fields(&device.other(), json!({"overlay": "temp"}))).is_ok());
}

/// Claimed, as by a mount.
fn partition(device: &LoopDevice) {
    let partition = device.partition();
    let claim = File::options().write(true).custom_flags(OFlag::O_EXCL.bits()).open(&partition).unwrap();
    assert_eq!(refusal(&device.path, json!({})), BUSY);
    drop(claim);
    let disk = try_open(fields(&device.path, json!({}))).unwrap();
    assert_eq!(refusal(&partition, json!({})), BUSY);
    drop(disk);
    assert!(try_open(fields(&partition, json!({}))).is_ok());
}

fn mounted(device: &LoopDevice) {
    let (path, directory) = (device.path.to_str().unwrap(), device.directory.path().join("mounted"));
    run("mkfs.ext4", &["-q", path]).unwrap();
    std::fs::create_dir(&directory).unwrap();
    run("mount", &["-o", "ro", path, directory.to_str().unwrap()]).unwrap();
    let message = refusal(&device.path, json!({}));
    let reader = try_open(fields(&device.path, json!({"read_only": true})));
    run("umount", &[directory.to_str().unwrap()]).unwrap();
    assert_eq!(message, BUSY);
    assert!(reader.is_ok());
    assert!(try_open(fields(&device.path, json!({}))).is_err(), "a reader has it");
    drop(reader);
    assert!(try_open(fields(&device.path, json!({}))).is_ok());
}

/// O_DIRECT needs a second descriptor of the same device.
fn direct(device: &LoopDevice) {
    let mut driver = start(fields(&device.path, json!({"direct": true})));
    assert_eq!(send(&mut driver, OUT, 8, &[0x5c; 4096]), OK);
    assert_eq!(read(&mut driver, 8, 4096), (vec![0x5c; 4096], OK));
    assert_eq!(refusal(&device.other(), json!({})), BUSY);
}

fn backing_file(device: &LoopDevice) {
    let (file, node) = (device.directory.path().join("disk.img"), device.path.display());
    let message = format!(
        ".path: {} is the backing file of {node}: use that device, or detach it, losetup -d {node}",
        file.display()
    );
    let refused = try_open(json!({"path": file, "format": "raw"})).err().unwrap();
    assert_eq!(refused.to_string(), message);
    // Readers aren't checked.
    let reader = try_open(json!({"path": file, "format": "raw", "read_only": true})).unwrap();
    let message = format!(
        ".path: {node} is a loop device whose backing file {} is in use as a disk or as an output: stop who has that",
        file.display()
    );
    assert_eq!(try_open(json!({"path": device.path, "format": "raw"})).err().unwrap().to_string(), message);
    let partition = device.partition();
    assert!(try_open(json!({"path": partition, "format": "raw"})).is_err());
    drop(reader);
    let log = log(&file);
    assert_eq!(try_open(json!({"path": device.path, "format": "raw"})).err().unwrap().to_string(), message);
    drop(log);
    assert!(try_open(json!({"path": device.path, "format": "raw"})).is_ok());
}

fn raw(path: &Path) -> serde_json::Value {
    json!({"path": path, "format": "raw"})
}

fn assert_opens(path: &Path) {
    if let Err(error) = try_open(raw(path)) {
        panic!("{error}");
    }
}

/// The message for a disk that can't be opened for writing, with PATH for its path.
fn raw_refusal(path: &Path) -> String {
    let error = try_open(raw(path)).err().expect("it is refused");
    error.to_string().replace(path.to_str().unwrap(), "PATH")
}

/// The lock that a monitor takes on its log.
fn log(path: &Path) -> File {
    let log = File::open(path).unwrap();
    assert!(range_lock::lock(&log, LockKind::Shared, DOES + WRITE..DOES + WRITE + 1).unwrap());
    log
}

/// Attached by a path of 2,200 bytes, to which 2,000 were prepended later.
fn long_path(device: &LoopDevice) {
    let level = "d".repeat(199);
    let (front, rear) = (device.directory.path().join("front"), device.directory.path().join("rear"));
    let deep = |from: &Path, levels| (0..levels).fold(from.to_owned(), |path, _| path.join(&level));
    std::fs::create_dir_all(deep(&front, 10)).unwrap();
    std::fs::create_dir_all(deep(&rear, 11)).unwrap();
    let (short, attached) = (device.directory.path().join("short"), deep(&rear, 11).join("attached"));
    File::create(&short).unwrap().set_len(1 << 20).unwrap();
    std::fs::hard_link(&short, &attached).unwrap();
    let long = BackedLoopDevice::new(&attached);
    std::fs::rename(&rear, deep(&front, 10).join("rear")).unwrap();
    let name = long.0.file_name().unwrap().to_str().unwrap();
    assert!(std::fs::read(format!("/sys/block/{name}/loop/backing_file")).is_err(), "its path is too long");
    let node = long.0.display();
    let message = format!(
        ".path: PATH is the backing file of {node}: use that device, or detach it, losetup -d {node}"
    );
    assert_eq!(raw_refusal(&short), message);
    let log = log(&short);
    let message = raw_refusal(&long.0);
    assert!(message.contains(" is in use as a disk or as an output: stop who has that"), "{message}");
    drop(log);
    assert_opens(&long.0);
}

/// So is one in another mount namespace.
fn deleted(device: &LoopDevice) {
    let (kept, attached) = (device.directory.path().join("kept"), device.directory.path().join("attached"));
    File::create(&kept).unwrap().set_len(1 << 20).unwrap();
    std::fs::hard_link(&kept, &attached).unwrap();
    let nameless = BackedLoopDevice::new(&attached);
    std::fs::remove_file(&attached).unwrap();
    // Another file takes the name, but the device's is still known.
    File::create(&attached).unwrap().set_len(1 << 20).unwrap();
    let node = nameless.0.display();
    let message = format!(
        ".path: PATH is the backing file of {node}: use that device, or detach it, losetup -d {node}"
    );
    assert_eq!(raw_refusal(&kept), message);
    assert_opens(&attached);
    let log = log(&kept);
    assert_eq!(
        raw_refusal(&nameless.0),
        format!(
            ".path: PATH is a loop device whose backing file {} (deleted) is in use as a disk or as an output: stop who has that",
            attached.display()
        )
    );
    drop(log);
    assert_opens(&nameless.0);
}

fn device_over_device(device: &LoopDevice) {
    let over = BackedLoopDevice::new(&device.path);
    let node = over.0.display();
    let message = format!(
        ".path: PATH is the backing device of {node}: use that device, or detach it, losetup -d {node}"
    );
    assert_eq!(raw_refusal(&device.path), message);
    // Through another node, unknown to the device.
    assert_eq!(raw_refusal(&device.other()), message);
    assert_opens(&over.0);
}

fn device_over_partition(device: &LoopDevice) {
    let over = BackedLoopDevice::new(&device.partition());
    let message = raw_refusal(&device.path);
    assert!(message.contains(&format!("is the backing device of {}:", over.0.display())), "{message}");
    assert_opens(&over.0);
    drop(over);
    let beside = BackedLoopDevice::new(&device.partition_at(2, "4096"));
    assert_opens(&device.directory.path().join("partition1"));
    drop(beside);
}

fn layers_are_held(device: &LoopDevice) {
    let over = BackedLoopDevice::new(&device.path);
    let top = BackedLoopDevice::new(&over.0);
    let disk = try_open(raw(&top.0)).unwrap();
    let claim = |path: &Path| File::options().read(true).custom_flags(OFlag::O_EXCL.bits()).open(path);
    let file = File::open(device.file()).unwrap();
    let is_locked = || range_lock::find(&file, FORBIDS + WRITE..FORBIDS + WRITE + 1).unwrap().is_some();
    assert!(claim(&over.0).is_err() && claim(&device.path).is_err() && is_locked());
    drop(disk);
    assert!(claim(&over.0).is_ok() && claim(&device.path).is_ok() && !is_locked());
}

fn layers_in_use(device: &LoopDevice) {
    let over = BackedLoopDevice::new(&device.path);
    let top = BackedLoopDevice::new(&over.0);
    let claim = File::options().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&device.path).unwrap();
    let (message, below) = (raw_refusal(&top.0), device.path.display());
    assert_eq!(
        message,
        format!(
            ".path: PATH is a loop device over {below}, which is in use by the host, or by another program or device of this \
             machine: see lsblk(8) and free it, or set \"read_only\""
        )
    );
    drop(claim);
    let log = log(&device.file());
    let (message, file) = (raw_refusal(&top.0), device.file());
    assert_eq!(
        message,
        format!(
            ".path: PATH is a loop device whose backing file {} is in use as a disk or as an output: stop who has that",
            file.display()
        )
    );
    drop(log);
    assert_opens(&top.0);
}

/// A device-mapper device claims its components.
fn mapped_layers_in_use(device: &LoopDevice, mapped: &MappedDevice) {
    let over = BackedLoopDevice::new(&mapped.node);
    let log = log(&device.file());
    let message = raw_refusal(&over.0);
    assert!(message.contains(" is in use as a disk or as an output: stop who has that"), "{message}");
    let message = raw_refusal(&mapped.node);
    assert!(message.contains(&format!("is the backing device of {}", over.0.display())), "{message}");
    drop(log);
    assert_opens(&over.0);
}

fn same_file(device: &LoopDevice) {
    let second = BackedLoopDevice::new(&device.file());
    let disk = try_open(raw(&device.path)).unwrap();
    // It is locked together with the other one.
    assert_eq!(raw_refusal(&second.0), BUSY);
    drop(disk);
    let claim = File::options().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&device.path).unwrap();
    assert_eq!(
        raw_refusal(&second.0),
        format!(
            ".path: PATH is a loop device whose backing file {} is that of {} too, which is in use: stop who has that",
            device.file().display(),
            device.path.display()
        )
    );
    drop(claim);
    assert_opens(&second.0);
}

fn parts_of_a_file(device: &LoopDevice) {
    let image = device.directory.path().join("parts.img");
    File::create(&image).unwrap().set_len(2 << 20).unwrap();
    let first = BackedLoopDevice::with(&["--sizelimit", "1MiB"], &image);
    let second = BackedLoopDevice::with(&["--offset", "1MiB"], &image);
    let _first = try_open(raw(&first.0)).unwrap();
    assert_opens(&second.0);
}

fn partitions(device: &LoopDevice) {
    let (first, second) = (device.partition(), device.partition_at(2, "4096"));
    let _first = try_open(raw(&first)).unwrap();
    assert_opens(&second);
}
