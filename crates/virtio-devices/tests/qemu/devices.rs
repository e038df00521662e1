//! Block devices. A lock is of one node of a device; the claim that a writer has is of the device.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Trial};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use tempfile::TempDir;
use vmm_hostio::range_lock::{self, DOES, LockKind, WRITE};

use crate::disk::*;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("device_written_by_two_nodes_is_refused", two_writers),
        trial("device_read_by_two_nodes_is_opened", two_readers),
        trial("device_with_a_partition_in_use_is_refused_for_writing", partition),
        trial("device_that_is_mounted_is_refused_for_writing", mounted),
        trial("device_written_past_the_page_cache_is_its_own", direct),
        trial("device_and_its_backing_file_are_not_both_written", backing_file),
    ]
}

/// A test with a loop device, which is ignored where there is none: not every host has them, and few let an ordinary user.
fn trial(name: &'static str, test: fn(&LoopDevice)) -> Trial {
    Trial::ignorable_test(name, move || match LoopDevice::new() {
        Ok(device) => {
            test(&device);
            Ok(Completion::Completed)
        }
        Err(why) => Ok(Completion::ignored_with(why)),
    })
}

/// A block device of 16 MiB, and a second node of it.
struct LoopDevice {
    directory: TempDir,
    path: PathBuf,
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
        // A file system that forbids devices.
        File::open(device.other()).map_err(|error| format!("a node of a device: {error}"))?;
        Ok(device)
    }

    /// A node of a new partition, of 1 MiB. The kernel needs no partition table for that.
    fn partition(&self) -> PathBuf {
        run("addpart", &[self.path.to_str().unwrap(), "1", "2048", "2048"]).unwrap();
        let disk = self.path.file_name().unwrap().to_str().unwrap();
        let number = std::fs::read_to_string(format!("/sys/block/{disk}/{disk}p1/dev")).unwrap();
        let (major, minor) = number.trim().split_once(':').unwrap();
        let node = self.directory.path().join("partition");
        make_node(&node, makedev(major.parse().unwrap(), minor.parse().unwrap())).unwrap();
        node
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

/// Claimed as by a mount.
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

/// O_DIRECT takes a second descriptor of the same device.
fn direct(device: &LoopDevice) {
    let mut driver = start(fields(&device.path, json!({"direct": true})));
    assert_eq!(send(&mut driver, OUT, 8, &[0x5c; 4096]), OK);
    assert_eq!(read(&mut driver, 8, 4096), (vec![0x5c; 4096], OK));
    assert_eq!(refusal(&device.other(), json!({})), BUSY);
}

fn backing_file(device: &LoopDevice) {
    let (file, node) = (device.directory.path().join("disk.img"), device.path.display());
    let message = format!(
        ".path: {} is the backing file of {node}: name that device, or detach it, losetup -d {node}",
        file.display()
    );
    let refused = try_open(json!({"path": file, "format": "raw"})).err().unwrap();
    assert_eq!(refused.to_string(), message);
    // Who only reads is trusted to know.
    let reader = try_open(json!({"path": file, "format": "raw", "read_only": true})).unwrap();
    let message = format!(
        ".path: {node} is a loop device whose backing file {} is in use as a disk or as an output: stop who has that",
        file.display()
    );
    assert_eq!(try_open(json!({"path": device.path, "format": "raw"})).err().unwrap().to_string(), message);
    let partition = device.partition();
    assert!(try_open(json!({"path": partition, "format": "raw"})).is_err());
    drop(reader);
    // What a monitor locks of its log.
    let log = File::open(&file).unwrap();
    assert!(range_lock::lock(&log, LockKind::Shared, DOES + WRITE..DOES + WRITE + 1).unwrap());
    assert_eq!(try_open(json!({"path": device.path, "format": "raw"})).err().unwrap().to_string(), message);
    drop(log);
    assert!(try_open(json!({"path": device.path, "format": "raw"})).is_ok());
}
