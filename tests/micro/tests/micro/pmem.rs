//! Persistent memory whose file loses a page, or has no room for one: the machine ends with a message.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use driver::{DEADLINE, Launch, Monitor, guests};
use harness::trials;
use libtest_mimic::{Completion, Trial};
use tempfile::TempDir;

use crate::common::HOST_CANT;

pub(crate) fn tests() -> Vec<Trial> {
    let on_full_tmpfs = || match FullTmpfs::mount() {
        Ok(full) => {
            store_without_room_ends_the_machine(&full);
            Ok(Completion::Completed)
        }
        Err(why) => Ok(Completion::ignored_with(why)),
    };
    let mut trials = trials![pmem_whose_file_is_truncated_ends_the_machine];
    trials.push(Trial::ignorable_test("pmem_without_room_for_a_store_ends_the_machine", on_full_tmpfs));
    trials
}

const LEN: u64 = 2 << 20;

/// A guest that stores to the file's first page for each byte of input.
fn guest(dir: &Path, file: &Path) -> Launch {
    let guest = guests::path("pmem");
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {guest:?}, "mode": "long"}}}}, "irqchip": true,
            "devices": [{{"type": "pmem", "id": "mem", "path": {file:?}}}]}}"#
    );
    std::fs::write(dir.join("vm.json"), config).unwrap();
    Monitor::command(["--config", "vm.json"]).dir(dir).on_terminal()
}

/// Has the guest store, where it must fail.
fn store_and_end(monitor: &mut Monitor, file: &Path) {
    monitor.send(b"2");
    monitor.expect_code(HOST_CANT, DEADLINE);
    let (said, file) = (monitor.stderr(), file.display());
    let error = format!(
        "error: the host has no page for the guest's access to a file: device \"mem\": {file} isn't allocated there and its file \
         system is full, or its storage has failed, or it was truncated: allocate all of it, fallocate -l {LEN} {file}"
    );
    assert!(said.contains(&error), "{said}");
    assert!(!said.contains("Bad address"), "{said}");
}

fn stores(monitor: &Monitor) -> usize {
    String::from_utf8(monitor.stdout()).unwrap().matches("stored").count()
}

fn pmem_whose_file_is_truncated_ends_the_machine() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("memory");
    let file = File::create(&path).unwrap();
    file.set_len(LEN).unwrap();
    let mut monitor = guest(dir.path(), &path).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"1");
    monitor.expect("stored\n", DEADLINE);
    assert_eq!(std::fs::read(&path).unwrap()[0], b'1');
    file.set_len(0).unwrap();
    store_and_end(&mut monitor, &path);
    assert_eq!(stores(&monitor), 1);
}

/// A tmpfs of 1 MiB without room.
struct FullTmpfs(TempDir);

impl FullTmpfs {
    fn mount() -> Result<Self, String> {
        let dir = TempDir::new().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
        let mount = mount.map_err(|error| format!("mount: {error}"))?;
        if !mount.status.success() {
            return Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned());
        }
        File::create(dir.path().join("memory")).unwrap().set_len(LEN).unwrap();
        let filled = std::fs::write(dir.path().join("filler"), vec![1; 2 << 20]);
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        Ok(Self(dir))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("memory")
    }
}

impl Drop for FullTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

fn store_without_room_ends_the_machine(full: &FullTmpfs) {
    let (dir, file) = (TempDir::new().unwrap(), full.file());
    let mut monitor = guest(dir.path(), &file).start();
    monitor.expect("ready\n", DEADLINE);
    store_and_end(&mut monitor, &file);
    assert_eq!(stores(&monitor), 0);
}
