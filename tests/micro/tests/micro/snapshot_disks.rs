//! Disks of machines that are saved and restored.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use driver::{DEADLINE, guests};
use harness::trials;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::snapshot::{Machine, manifest, refusal, restored};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        snapshot_with_stop_goes_on_with_its_disk,
        snapshot_beside_its_running_machine_is_refused_by_its_disk,
        snapshot_whose_disk_was_written_since_is_refused_by_its_path,
        snapshot_goes_on_with_a_copy_of_its_disk_from_that_time,
        snapshot_with_disks_is_continued_any_number_of_times_and_stays_as_it_is,
        snapshot_with_disks_goes_on_with_a_copy_from_it,
        snapshot_with_a_disk_that_has_changed_in_it_is_refused,
        snapshot_describes_its_disks,
    ]
}

/// Bytes from one sector that the guest writes to the next.
const STRIDE: u64 = 4 << 20;

/// The guest writes zeros to the next sector of its disk for each byte that it reads.
fn writer(disk: &Value) -> Machine {
    let flat = json!({"image": guests::path("disk-write"), "mode": "protected"});
    Machine::ready(json!({"boot": {"flat": flat}, "irqchip": true, "devices": [disk]}))
}

fn disk(path: &Path) -> Value {
    json!({"type": "block", "id": "root", "path": path})
}

/// A disk whose first sectors in which the guest writes have sevens.
fn image(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("root.img");
    let file = File::create_new(&path).unwrap();
    file.set_len(8 * STRIDE).unwrap();
    (0..8).for_each(|index| file.write_all_at(&[7; 512], index * STRIDE).unwrap());
    path
}

/// The first byte of the sectors in which the guest writes.
fn sectors(path: &Path) -> [u8; 4] {
    let file = File::open(path).unwrap();
    [0, 1, 2, 3].map(|index| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, index * STRIDE).unwrap();
        byte[0]
    })
}

/// A copy with its time, as `cp --preserve=timestamps` makes it.
fn copy(path: &Path, to: &Path) {
    fs::copy(path, to).unwrap();
    File::open(to).unwrap().set_modified(fs::metadata(path).unwrap().modified().unwrap()).unwrap();
}

fn snapshot_with_stop_goes_on_with_its_disk() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = image(&dir);
    let mut machine = writer(&disk(&path));
    machine.echoes("1");
    let snapshot = machine.save("snap", &["--stop"]);
    machine.monitor.expect_code(0, DEADLINE);
    let mut copy = restored(&snapshot, &[]);
    copy.echoes("2");
    copy.quit();
    assert_eq!(sectors(&path), [0, 0, 7, 7]);
}

fn snapshot_beside_its_running_machine_is_refused_by_its_disk() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = image(&dir);
    let mut machine = writer(&disk(&path));
    let snapshot = machine.save("snap", &[]);
    let message = refusal(&snapshot, &[]);
    let expected = format!("devices[0].path: {} is ", path.display());
    assert!(message.contains(&expected), "{message}");
    assert!(message.contains("locked by another program: stop that one"), "{message}");
    machine.echoes("1");
}

fn snapshot_whose_disk_was_written_since_is_refused_by_its_path() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = image(&dir);
    let mut machine = writer(&disk(&path));
    let snapshot = machine.save("snap", &[]);
    machine.echoes("1");
    assert!(machine.ctl(&["quit"]).status.success());
    machine.monitor.expect_code(0, DEADLINE);
    let message = refusal(&snapshot, &[]);
    let expected = format!("root: virtio.block: stamp: {} was written after the snapshot", path.display());
    assert!(message.contains(&expected), "{message}");
    assert!(message.contains("--stop"), "{message}");
}

fn snapshot_goes_on_with_a_copy_of_its_disk_from_that_time() {
    let dir = tempfile::TempDir::new().unwrap();
    let (path, to) = (image(&dir), dir.path().join("copy.img"));
    let mut machine = writer(&disk(&path));
    machine.echoes("1");
    assert!(machine.ctl(&["pause"]).status.success());
    let snapshot = machine.save("snap", &[]);
    copy(&path, &to);
    assert!(machine.ctl(&["resume"]).status.success());
    machine.echoes("23");
    let set = format!("devices.root.path={}", to.display());
    let mut clone = restored(&snapshot, &["--set", &set]);
    clone.echoes("2");
    clone.quit();
    assert_eq!((sectors(&path), sectors(&to)), ([0, 0, 0, 7], [0, 0, 7, 7]));
}

fn snapshot_with_disks_is_continued_any_number_of_times_and_stays_as_it_is() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = image(&dir);
    let mut machine = writer(&disk(&path));
    machine.echoes("1");
    let snapshot = machine.save("snap", &["--disks"]);
    machine.echoes("23");
    // At the same time, beside the machine itself.
    let mut clones = [(); 2].map(|()| restored(&snapshot, &[]));
    clones.iter_mut().for_each(|clone| clone.echoes("2"));
    clones.into_iter().for_each(Machine::quit);
    let saved = snapshot.join("disks/root");
    assert_eq!((sectors(&path), sectors(&saved)), ([0, 0, 0, 7], [0, 7, 7, 7]));
    assert_eq!(fs::metadata(&saved).unwrap().len(), 8 * STRIDE);
    assert_eq!(manifest(&snapshot)["disks"][0]["contents"], json!({"saved": "disks/root"}));
}

/// Then its guest writes to the copy.
fn snapshot_with_disks_goes_on_with_a_copy_from_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let (path, to) = (image(&dir), dir.path().join("copy.img"));
    let mut machine = writer(&disk(&path));
    machine.echoes("1");
    let snapshot = machine.save("snap", &["--disks", "--stop"]);
    machine.monitor.expect_code(0, DEADLINE);
    copy(&snapshot.join("disks/root"), &to);
    let mut clone = restored(&snapshot, &["--set", &format!("devices.root.path={}", to.display())]);
    clone.echoes("2");
    clone.quit();
    assert_eq!((sectors(&path), sectors(&to)), ([0, 7, 7, 7], [0, 0, 7, 7]));
}

fn snapshot_with_a_disk_that_has_changed_in_it_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let machine = writer(&disk(&image(&dir)));
    let snapshot = machine.save("snap", &["--disks"]);
    let saved = snapshot.join("disks/root");
    File::options().write(true).open(&saved).unwrap().write_all_at(b"x", 0).unwrap();
    let message = refusal(&snapshot, &[]);
    assert!(message.contains(&format!("stamp: {} is another file", saved.display())), "{message}");
}

fn snapshot_describes_its_disks() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = image(&dir);
    let read_only = json!({"type": "block", "id": "base", "path": path, "read_only": true});
    let machine = writer(&read_only);
    let snapshot = machine.save("snap", &["--disks"]);
    let found = fs::metadata(&path).unwrap();
    let (device, time) = (found.dev(), format!("{}.{:09}", found.mtime(), found.mtime_nsec()));
    let stamp = format!(
        "{}:{} {} {} {time}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device),
        found.ino(),
        8 * STRIDE
    );
    let expected = json!({"id": "base", "path": path, "len": 8 * STRIDE, "contents": {"stamp": stamp}});
    assert_eq!(manifest(&snapshot)["disks"], json!([expected]));
    assert!(!snapshot.join("disks").exists());
}
