//! vsock, driven through its queues, with the test's own sockets on the host side.

mod bulk;
mod config;
mod credit;
mod delivery;
mod descriptors;
mod guest;
mod hostile;
mod lifecycle;
mod open;
mod packet;
mod restore;
mod shutdown;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::testing::{DEADLINE, without_filters};
use vmm_virtio::{Setting, VirtioDevice};
use vmm_virtio_devices::KINDS;

use guest::{Flow, Guest};

const CID: u32 = 3;
/// Ports on which the test's programs listen, in the guest and on the host.
const GUEST_PORT: u32 = 52;
const HOST_PORT: u32 = 1024;

fn try_open(directory: &Path, fields: Value) -> Result<Box<dyn VirtioDevice>, String> {
    // Here it connects to programs itself; in a monitor the path keeper does.
    without_filters();
    let entry = KINDS.iter().find(|entry| entry.name == "vsock").unwrap();
    let setting = Setting { directory, vcpus: 1, id: "vsock0", plan_only: false };
    entry.open(fields, &setting).map_err(|error| error.to_string())
}

/// A guest with a running device, whose socket is `v.sock` in a directory of its own.
fn running() -> (Guest, TempDir) {
    let directory = TempDir::new().unwrap();
    let device = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    (Guest::new(device), directory)
}

/// A client that has sent its line.
fn client(directory: &TempDir, port: u32) -> UnixStream {
    let mut client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
    client
}

/// The socket for the guest's connections to a port.
fn listener(directory: &TempDir, port: u32) -> UnixListener {
    UnixListener::bind(directory.path().join(format!("v.sock_{port}"))).unwrap()
}

/// Reads a line.
fn line(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// A connection from the host to the guest, and the host's end.
fn from_host(guest: &mut Guest, directory: &TempDir) -> (Flow, UnixStream) {
    let mut client = client(directory, GUEST_PORT);
    let flow = guest.accept();
    assert_eq!(line(&mut client), format!("OK {}\n", flow.host_port));
    (flow, client)
}

/// A connection from the guest to the host, and the host's end.
fn from_guest(guest: &mut Guest, directory: &TempDir) -> (Flow, UnixStream) {
    let listener = listener(directory, HOST_PORT);
    let flow = guest.connect(HOST_PORT);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    std::fs::remove_file(directory.path().join(format!("v.sock_{HOST_PORT}"))).unwrap();
    (flow, socket)
}

fn read(socket: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

/// Reads to the end.
fn read_all(socket: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes that differ from their neighbours.
fn counted(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// How long nothing must arrive.
const MOMENT: Duration = Duration::from_millis(20);
