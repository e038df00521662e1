//! A network card, driven through its registers and queues, with the test at the other end of its socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::{Value, json};
use vmm_virtio::testing::{Buf, Driver, Used};
use vmm_virtio::{Setting, VirtioDevice};
use vmm_virtio_devices::KINDS;

mod config;
mod passt;
mod receive;
mod transmit;
mod update;
#[cfg(feature = "usernet")]
mod user;

const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;
const F_MRG_RXBUF: u64 = 1 << 15;
const HEADER: [u8; 12] = [0; 12];
/// The header of a frame in a single buffer.
const ONE_BUFFER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn try_open(fields: Value) -> Result<Box<dyn VirtioDevice>, String> {
    let entry = KINDS.iter().find(|entry| entry.name == "net").unwrap();
    let setting = Setting { directory: Path::new("/vms"), vcpus: 4, id: "net0", plan_only: false };
    entry.open(fields, &setting).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(fields: Value, message: &str) {
    assert_eq!(try_open(fields).err().as_deref(), Some(message));
}

/// A pair of sockets that preserve message boundaries and report a closed peer.
fn pair() -> (File, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (ours.into(), theirs)
}

/// A driver with an uninitialised card, and its peer.
fn fresh_with(mut fields: Value) -> (Driver, File) {
    let (ours, theirs) = pair();
    fields["backend"] = json!({"fd": theirs.as_raw_fd()});
    (Driver::new(try_open(fields).unwrap(), 1), ours)
}

fn running(features: u64) -> (Driver, File) {
    let (mut driver, peer) = fresh_with(json!({}));
    driver.init(features);
    (driver, peer)
}

/// Bytes that differ from their neighbours.
fn counted(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&HEADER, frame].concat()
}

fn send(mut peer: &File, frame: &[u8]) {
    peer.write_all(&framed(frame)).unwrap();
}

/// The next frame, with its header.
fn take(mut peer: &File) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let len = peer.read(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn add(driver: &mut Driver, bufs: &[Buf<'_>]) {
    driver.queue(RECEIVEQ).add(bufs);
    driver.queue(RECEIVEQ).kick();
}

fn wait(driver: &mut Driver) -> Used {
    driver.queue(RECEIVEQ).wait_used()
}

fn errors(driver: &Driver) -> u64 {
    driver.control().counters().errors.get()
}
