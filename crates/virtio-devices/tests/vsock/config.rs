//! Configs, and the state of their path.

use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::testing::Driver;

use super::try_open;

#[track_caller]
fn assert_refused(directory: &Path, fields: Value, message: &str) {
    assert_eq!(try_open(directory, fields).err().as_deref(), Some(message));
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn config_says_the_context_id_which_is_3_if_it_does_not() {
    let directory = TempDir::new().unwrap();
    let cid = |fields: Value| {
        let driver = Driver::new(try_open(directory.path(), fields).unwrap(), 19);
        driver.config(0, 8)
    };
    assert_eq!(cid(json!({"path": "v.sock"})), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cid(json!({"path": "v.sock", "cid": 0xffff_fffe_u32})), [0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn config_with_a_context_id_that_is_no_guests_is_refused() {
    let directory = TempDir::new().unwrap();
    let with = |cid: u64| json!({"path": "v.sock", "cid": cid});
    let of = |cid: u64| format!(".cid: expected a whole number from 3 to 4294967294, found the number {cid}");
    assert_refused(directory.path(), with(2), &of(2));
    assert_refused(directory.path(), with(0xffff_ffff), &of(0xffff_ffff));
    assert_refused(directory.path(), with(1 << 32), &of(1 << 32));
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn config_without_a_path_is_refused() {
    let message = ": \"path\" is missing, add that of the Unix socket, such as \"vm.sock\", or set \"vhost\"";
    assert_refused(Path::new("/"), json!({}), message);
}

#[test]
fn path_too_long_says_how_long_it_may_be() {
    let directory = TempDir::new().unwrap();
    let room = 96 - directory.path().as_os_str().len() - 1;
    let (longest, longer) = ("x".repeat(room), "x".repeat(room + 1));
    let path = directory.path().join(&longer);
    let message = format!(
        ".path: {} has 97 bytes with its directory, and a socket's name with \"_\" and a port after it 107: \
         at most 96 are left",
        path.display()
    );
    assert_refused(directory.path(), json!({"path": longer}), &message);
    let device = try_open(directory.path(), json!({"path": longest})).unwrap();
    assert_eq!(names(&directory), [longest]);
    drop(device);
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn path_in_use_is_refused_and_stays() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("v.sock");
    let message = format!(
        ".path: {} is in use by another program: stop that one, or choose another path",
        path.display()
    );
    let first = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    assert_refused(directory.path(), json!({"path": "v.sock"}), &message);
    UnixStream::connect(&path).unwrap();
    assert_eq!(names(&directory), ["v.sock"]);
    drop(first);
    try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
}

#[test]
fn path_of_a_socket_that_a_crash_left_is_taken_over() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("v.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err());
    let device = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    UnixStream::connect(&path).unwrap();
    assert_eq!(names(&directory), ["v.sock"]);
    drop(device);
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn path_that_a_crash_left_half_taken_over_is_taken_over() {
    let directory = TempDir::new().unwrap();
    drop(UnixListener::bind(directory.path().join("v.sock")).unwrap());
    drop(UnixListener::bind(directory.path().join("v.sock.next")).unwrap());
    let device = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    assert_eq!(names(&directory), ["v.sock"]);
    drop(device);
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn path_that_another_is_taking_over_is_refused_and_stays() {
    let directory = TempDir::new().unwrap();
    drop(UnixListener::bind(directory.path().join("v.sock")).unwrap());
    let next = directory.path().join("v.sock.next");
    let other = UnixListener::bind(&next).unwrap();
    let message = |problem: &str| {
        let path = directory.path().join("v.sock");
        format!(
            ".path: {} can't be taken over: {} {problem}, or choose another path",
            path.display(),
            next.display()
        )
    };
    let in_use = message("is in use by another program: stop that one");
    assert_refused(directory.path(), json!({"path": "v.sock"}), &in_use);
    drop(other);
    std::fs::remove_file(&next).unwrap();
    std::fs::write(&next, b"precious").unwrap();
    let no_socket = message("is there and is no socket: move it away");
    assert_refused(directory.path(), json!({"path": "v.sock"}), &no_socket);
    assert_eq!(std::fs::read(&next).unwrap(), b"precious");
    assert_eq!(names(&directory).len(), 2);
}

#[test]
fn path_of_something_else_is_refused_and_stays() {
    let directory = TempDir::new().unwrap();
    let of = |name: &str| {
        let path = directory.path().join(name);
        format!(".path: {} is there and is no socket: move it away, or choose another path", path.display())
    };
    std::fs::write(directory.path().join("file"), b"precious").unwrap();
    assert_refused(directory.path(), json!({"path": "file"}), &of("file"));
    assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"precious");
    // A dangling symbolic link isn't followed.
    symlink("/nowhere/at/all", directory.path().join("link")).unwrap();
    assert_refused(directory.path(), json!({"path": "link"}), &of("link"));
    let datagrams = directory.path().join("datagrams");
    let _socket = UnixDatagram::bind(&datagrams).unwrap();
    let message = format!(
        ".path: {} is another's socket: Protocol wrong type for socket (os error 91)",
        datagrams.display()
    );
    assert_refused(directory.path(), json!({"path": "datagrams"}), &message);
    assert_eq!(names(&directory).len(), 3);
}

#[test]
fn path_in_a_directory_that_there_is_not_is_refused() {
    assert_refused(
        Path::new("/nowhere"),
        json!({"path": "v.sock"}),
        ".path: /nowhere/v.sock can't be made: the directory /nowhere doesn't exist: create it, or choose another path",
    );
}

#[test]
fn path_that_another_has_taken_by_force_is_left_to_that_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("v.sock");
    let device = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(device);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn path_left_by_a_crash_goes_to_one_of_many_that_start_at_once() {
    let directory = Arc::new(TempDir::new().unwrap());
    let path = directory.path().join("v.sock");
    // When there was a moment without the name, two of them got it in one of a hundred rounds.
    for _ in 0..200 {
        drop(UnixListener::bind(&path).unwrap());
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (directory, barrier) = (Arc::clone(&directory), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    try_open(directory.path(), json!({"path": "v.sock"})).ok()
                })
            })
            .collect();
        let devices: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(devices.len(), 1);
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(&directory), ["v.sock"]);
        drop(devices);
        assert_eq!(names(&directory), Vec::<String>::new());
    }
}

#[test]
fn config_with_vhost_and_a_path_is_refused() {
    let message = ".path: conflicts with \"vhost\", which has no Unix sockets: remove one of them";
    assert_refused(Path::new("/"), json!({"vhost": true, "path": "v.sock"}), message);
}
