//! How many of the host's descriptors the device takes, and what happens when there are none.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vmm_virtio::testing::DEADLINE;
use vmm_virtio_devices::vsock::packet::Op;

use super::guest::Guest;
use super::{HOST_PORT, line, listener, running};

/// Set in the environment of the process that has the limit.
const LIMITED: &str = "VMM_LIMITED";

/// Whether this process is the one with a limit of 256 descriptors for the test called `name`. If it isn't, runs
/// the test in such a process, because the limit is the whole process's.
fn is_limited(name: &str) -> bool {
    if std::env::var_os(LIMITED).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let script =
        format!("ulimit -n 256; exec '{}' --exact descriptors::{name} --nocapture", program.display());
    let output = Command::new("sh").args(["-c", &script]).env(LIMITED, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn open_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Clients that connect and say nothing.
fn silent(directory: &TempDir, count: usize) -> Vec<UnixStream> {
    let connect = |_| {
        let client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    };
    (0..count).map(connect).collect()
}

/// The answer to the guest's request for a connection to the host.
fn answer(guest: &mut Guest) -> u16 {
    let flow = guest.request(HOST_PORT);
    let (header, _) = guest.packet();
    assert!(flow.is_of(&header));
    header.op
}

/// Under such a limit the device may have 16.
#[test]
fn descriptors_of_silent_clients_and_connections_are_no_more_than_half_of_the_limit() {
    if !is_limited("descriptors_of_silent_clients_and_connections_are_no_more_than_half_of_the_limit") {
        return;
    }
    let (mut guest, directory) = running();
    let listener = listener(&directory, HOST_PORT);
    let before = open_count();
    let mut clients = silent(&directory, 40);
    // One that sends nothing while others wait is closed soon.
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
    let taken = open_count() - before - clients.len();
    assert!(taken <= 2, "silent clients have {taken}");
    let answers: Vec<u16> = (0..20).map(|_| answer(&mut guest)).collect();
    let opened = answers.iter().filter(|op| **op == Op::Response as u16).count();
    assert_eq!(opened, 14, "{answers:?}");
    let taken = open_count() - before - clients.len();
    assert!((14..=16).contains(&taken), "the device has {taken}");
    drop(listener);
}

#[test]
fn descriptors_that_are_lacking_for_a_client_are_told_once_and_it_waits_for_them() {
    if !is_limited("descriptors_that_are_lacking_for_a_client_are_told_once_and_it_waits_for_them") {
        return;
    }
    let (mut guest, directory) = running();
    let unconnected = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let path = SocketAddrUnix::new(directory.path().join("v.sock")).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    connect(&unconnected, &path).unwrap();
    let mut client = UnixStream::from(unconnected);
    client.write_all(b"CONNECT 52\n").unwrap();
    let begun = Instant::now();
    // Each attempt counts as an error.
    while guest.driver.control().counters().errors.get() < 3 {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    let flow = guest.accept();
    assert_eq!(line(&mut client), format!("OK {}\n", flow.host_port));
    assert_eq!(
        guest.driver.control().take_notices().texts,
        [
            "can't accept a host program's connection, which waits until it can be: Too many open files (os error 24); raise the \
             limit of open files (ulimit -n)"
        ]
    );
}
