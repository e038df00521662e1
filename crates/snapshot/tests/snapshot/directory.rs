//! A snapshot's directory: complete, or not there.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vmm_snapshot::{
    DiskContents, Error, Manifest, MemoryLayout, NewSnapshot, Snapshot, SnapshotFiles, verify,
};

use crate::machine::{Timer, disk, manifest, writer};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("vm.snap");
    (directory, destination)
}

/// Writes everything but the last step.
fn write(new: &NewSnapshot) {
    let writer = writer();
    let manifest = manifest(&writer);
    write_as(new, &manifest);
}

fn write_as(new: &NewSnapshot, manifest: &Manifest) {
    let files = new.files().unwrap();
    files.start_memory(&manifest.memory).unwrap().write(4096, &[7; 4096]).unwrap();
    files.finish(writer(), manifest).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn published_snapshot_is_what_was_written() {
    let (_directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    write(&new);
    assert_eq!(new.publish().unwrap(), manifest(&writer()));

    assert_eq!(names(destination.parent().unwrap()), ["vm.snap"]);
    assert_eq!(names(&destination), ["manifest.json", "memory", "state"]);
    let text = fs::read_to_string(destination.join("manifest.json")).unwrap();
    assert_eq!(text, manifest(&writer()).to_json().unwrap());
    let mut memory = vec![0; 16 << 10];
    memory[4096..8192].fill(7);
    assert_eq!(fs::read(destination.join("memory")).unwrap(), memory);
    let mut snapshot = Snapshot::open(&destination).unwrap();
    assert_eq!(snapshot.state.take::<Timer>(0).unwrap(), crate::machine::timer());
    let verified = verify(&destination).unwrap();
    assert_eq!((verified.sections, verified.memory_len, verified.disks), (3, 16 << 10, 0));
}

#[test]
fn only_its_user_may_read_a_snapshot() {
    let (_directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    new.disk("root").unwrap().0.set_len(1 << 30).unwrap();
    write(&new);
    new.publish().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!([".", "disks"].map(|name| mode(&destination.join(name))), [0o700; 2]);
    let files = ["manifest.json", "state", "memory", "disks/root"];
    assert_eq!(files.map(|name| mode(&destination.join(name))), [0o600; 4]);
}

#[test]
fn snapshot_that_is_dropped_leaves_nothing() {
    let (directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    new.disk("root").unwrap();
    write(&new);
    assert_eq!(names(directory.path()).len(), 1);
    drop(new);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn destination_that_exists_is_refused_by_name() {
    let (_directory, destination) = place();
    let message = format!("{}: exists already; name a new directory", destination.display());
    let refusal = || NewSnapshot::create(&destination).unwrap_err().to_string();
    fs::create_dir(&destination).unwrap();
    assert_eq!(refusal(), message);
    fs::remove_dir(&destination).unwrap();
    symlink("nowhere", &destination).unwrap();
    assert_eq!(refusal(), message);
}

#[test]
fn destination_that_exists_at_the_end_is_not_replaced() {
    let (directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    write(&new);
    // Empty, so that rename(2) would replace it.
    fs::create_dir(&destination).unwrap();
    let inode = fs::metadata(&destination).unwrap().ino();
    assert!(matches!(new.publish(), Err(Error::Exists(_))));
    assert_eq!(fs::metadata(&destination).unwrap().ino(), inode);
    assert_eq!(names(directory.path()), ["vm.snap"]);
}

#[test]
fn destination_without_a_name_is_refused() {
    let refusal = |path: &str| NewSnapshot::create(Path::new(path)).unwrap_err().to_string();
    assert_eq!(refusal("/"), "/: is no name of a new directory");
    assert_eq!(refusal("a/.."), "a/..: is no name of a new directory");
    assert_eq!(refusal(""), ": is no name of a new directory");
}

#[test]
fn directory_that_is_missing_is_named() {
    let (_directory, destination) = place();
    let error = NewSnapshot::create(&destination.join("vm.snap")).unwrap_err();
    let message = format!("{}: No such file or directory (os error 2)", destination.display());
    assert_eq!(error.to_string(), message);
}

#[test]
fn snapshot_without_its_state_is_not_published() {
    let (directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    let mut files = new.files().unwrap();
    let text = manifest(&writer()).to_json().unwrap();
    files.manifest.take().unwrap().write_all(text.as_bytes()).unwrap();
    let error = new.publish().unwrap_err().to_string();
    assert!(
        error.ends_with("/state: is not the state of a snapshot: it doesn't begin with \"VMMSTATE\""),
        "{error}"
    );
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn state_without_memory_is_not_written() {
    let (_directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    let error = new.files().unwrap().finish(writer(), &manifest(&writer())).unwrap_err();
    assert_eq!(error.to_string(), "memory: has 0 bytes, but 16384 were saved");
}

/// Writes state and memory as another process does that has their descriptors.
fn write_elsewhere(files: &SnapshotFiles) {
    let [state, memory] = [&files.state, &files.memory].map(|file| file.try_clone().unwrap());
    let writer = writer();
    let manifest = manifest(&writer);
    let theirs = SnapshotFiles::of(state, memory).unwrap();
    theirs.start_memory(&manifest.memory).unwrap().write(4096, &[7; 4096]).unwrap();
    theirs.finish(writer, &manifest).unwrap();
}

#[test]
fn snapshot_whose_files_another_process_writes_is_published() {
    let (_directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    let files = new.files().unwrap();
    // Wherever the other process has left the position.
    (&files.state).seek(SeekFrom::Start(7)).unwrap();
    write_elsewhere(&files);
    (&files.state).seek(SeekFrom::End(0)).unwrap();
    new.copy_manifest(files).unwrap();
    assert_eq!(new.publish().unwrap(), manifest(&writer()));
    let verified = verify(&destination).unwrap();
    let state = fs::metadata(destination.join("state")).unwrap().len();
    let amounts = format!("16 KiB of memory (4 KiB stored), 3 sections in {state} bytes of state");
    assert_eq!(verified.amounts(), amounts);
}

#[test]
fn snapshot_whose_files_nobody_has_written_has_no_manifest() {
    let (directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    let error = new.copy_manifest(new.files().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "state: is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"");
    drop(new);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn snapshot_that_is_kept_stays_when_it_is_not_published() {
    let (directory, destination) = place();
    let mut new = NewSnapshot::create(&destination).unwrap();
    let kept = new.keep().to_owned();
    write(&new);
    fs::create_dir(&destination).unwrap();
    assert!(matches!(new.publish(), Err(Error::Exists(_))));
    assert_eq!(names(&kept), ["manifest.json", "memory", "state"]);
    assert_eq!(names(directory.path()).len(), 2);
}

#[test]
fn files_of_others_are_refused_that_are_no_files_of_a_snapshot() {
    let (directory, _) = place();
    let open = |name: &str, options: &mut fs::OpenOptions| {
        options.create(true).open(directory.path().join(name)).unwrap()
    };
    let good = |name| open(name, fs::File::options().read(true).write(true));
    let refusal = |state, memory| SnapshotFiles::of(state, memory).unwrap_err().to_string();
    let mode = "memory: is not open for reading and writing, or with O_APPEND";
    good("read-only");
    let read_only = fs::File::open(directory.path().join("read-only")).unwrap();
    assert_eq!(refusal(good("state"), read_only), mode);
    assert_eq!(refusal(good("state"), open("b", fs::File::options().write(true))), mode);
    assert_eq!(refusal(good("state"), open("c", fs::File::options().read(true).append(true))), mode);
    good("full").write_all(b"x").unwrap();
    assert_eq!(refusal(good("full"), good("memory")), "state: is not empty");
    let device = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    assert_eq!(refusal(device, good("memory")), "state: is not a regular file");
    assert_eq!(refusal(good("state"), good("state")), "state and memory are the same file");
    SnapshotFiles::of(good("state"), good("memory")).unwrap();
}

fn with_disk(len: u64) -> Result<Manifest, Error> {
    let (_directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    let (file, path) = new.disk("root").unwrap();
    file.set_len(len).unwrap();
    let disks = vec![disk("root", DiskContents::Saved(path))];
    write_as(&new, &Manifest { disks, ..manifest(&writer()) });
    let manifest = new.publish()?;
    assert_eq!(verify(&destination).unwrap().disks, 1);
    Ok(manifest)
}

#[test]
fn disk_in_the_snapshot_has_its_length() {
    assert_eq!(with_disk(1 << 30).unwrap().disks[0].saved_as(), Some("disks/root"));
    let error = with_disk((1 << 30) - 1).unwrap_err().to_string();
    assert!(error.ends_with("/disks/root: has 1073741823 bytes, but 1073741824 were saved"), "{error}");
}

fn published() -> (TempDir, PathBuf) {
    let (directory, destination) = place();
    let new = NewSnapshot::create(&destination).unwrap();
    write(&new);
    new.publish().unwrap();
    (directory, destination)
}

#[test]
fn memory_that_is_truncated_is_refused() {
    let (_directory, snapshot) = published();
    let memory = snapshot.join("memory");
    fs::File::options().write(true).open(&memory).unwrap().set_len(16383).unwrap();
    let message = format!("{}: has 16383 bytes, but 16384 were saved", memory.display());
    assert_eq!(verify(&snapshot).unwrap_err().to_string(), message);
}

#[test]
fn manifest_that_was_edited_is_refused() {
    let (_directory, snapshot) = published();
    let edited = Manifest { program: "other".to_owned(), ..manifest(&writer()) };
    fs::write(snapshot.join("manifest.json"), edited.to_json().unwrap()).unwrap();
    let message = format!("{}: manifest.json and the manifest in state differ", snapshot.display());
    assert_eq!(verify(&snapshot).unwrap_err().to_string(), message);
}

#[test]
fn state_and_memory_are_a_snapshot_without_their_directory() {
    let (_directory, snapshot) = published();
    let open = |name: &str| fs::File::open(snapshot.join(name)).unwrap();
    let pair = Snapshot::of_files(open("state"), open("memory")).unwrap();
    assert_eq!(*pair.state.manifest(), manifest(&writer()));
    let error = Snapshot::of_files(open("memory"), open("state")).unwrap_err().to_string();
    assert_eq!(error, "state: is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"");
}

/// A FIFO that nobody writes to would be opened for ever.
#[test]
fn file_that_is_no_file_is_refused() {
    let (_directory, snapshot) = published();
    let state = snapshot.join("state");
    fs::remove_file(&state).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &state, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let message = format!("{}: is not a regular file", state.display());
    assert_eq!(verify(&snapshot).unwrap_err().to_string(), message);
}

#[test]
fn state_that_is_too_long_is_not_read() {
    let (_directory, snapshot) = published();
    let state = snapshot.join("state");
    fs::File::options().write(true).open(&state).unwrap().set_len(1 << 40).unwrap();
    let message = format!(
        "{}: has 1099511627776 bytes, but the state of a machine has at most 67108864",
        state.display()
    );
    assert_eq!(verify(&snapshot).unwrap_err().to_string(), message);
}

/// The directory that the test below finds full when it runs itself in a mount namespace.
const FULL: &str = "VMM_FULL_DIRECTORY";
/// A script that mounts a small file system there and runs its arguments.
const SMALL: &str = r#"mount -t tmpfs -o size=64k none "$VMM_FULL_DIRECTORY" && exec "$0" "$@""#;

#[test]
fn snapshot_on_a_full_disk_fails_and_leaves_nothing() {
    let Some(full) = std::env::var_os(FULL) else {
        return run_in_small("directory::snapshot_on_a_full_disk_fails_and_leaves_nothing");
    };
    let full = Path::new(&full);
    let new = NewSnapshot::create(&full.join("vm.snap")).unwrap();
    let files = new.files().unwrap();
    let layout = MemoryLayout::of([0..16 << 20]).unwrap();
    let memory = files.start_memory(&layout).unwrap();
    let error = memory.write(0, &[1; 256 << 10]).unwrap_err();
    assert_eq!(error.to_string(), "memory: No space left on device (os error 28)");
    drop(new);
    assert_eq!(names(full), [""; 0]);
}

/// Runs a test of this program where the directory is on a small file system.
fn run_in_small(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SMALL]).args(arguments);
        command.env(FULL, directory.path()).output()
    };
    let probe = unshare(&["true"]);
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this host gives no user namespace: {probe:?}");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = unshare(&[program.to_str().unwrap(), "--exact", test, "--nocapture"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}
