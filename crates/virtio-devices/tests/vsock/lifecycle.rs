//! Reset, suspend and power cycle.

use std::io::Write;
use std::os::unix::net::UnixStream;

use vmm_virtio_devices::vsock::packet::Op;

use super::{client, counted, from_guest, from_host, line, read, read_all, running};

#[test]
fn connections_last_over_a_pause() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.driver.suspend();
    client.write_all(&counted(5000)).unwrap();
    let mut waiting = super::client(&directory, 7);
    guest.driver.resume();
    assert_eq!(guest.expect_data(&mut flow, 5000), counted(5000));
    guest.send_data(&mut flow, b"back");
    assert_eq!(read(&mut client, 4), b"back");
    let other = guest.accept();
    assert_eq!(line(&mut waiting), format!("OK {}\n", other.host_port));
}

#[test]
fn connections_end_when_the_driver_begins_anew() {
    let (mut guest, directory) = running();
    let (_, mut client) = from_host(&mut guest, &directory);
    let (mut old, mut socket) = from_guest(&mut guest, &directory);
    guest.init();
    guest.give_buffers();
    assert_eq!(read_all(&mut client), b"");
    assert_eq!(read_all(&mut socket), b"");
    guest.send_data(&mut old, b"x");
    guest.expect(&mut old, Op::Rst);
    from_host(&mut guest, &directory);
}

#[test]
fn connections_end_with_the_device() {
    let (mut guest, directory) = running();
    let (_, mut client) = from_host(&mut guest, &directory);
    drop(guest);
    assert_eq!(read_all(&mut client), b"");
    assert!(!directory.path().join("v.sock").exists());
}

#[test]
fn clients_that_come_before_the_driver_are_served_when_it_is_there() {
    let (mut guest, directory) = running();
    guest.driver.reset();
    let mut early = client(&directory, 7);
    let silent = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    guest.init();
    guest.give_buffers();
    let flow = guest.accept();
    assert_eq!(line(&mut early), format!("OK {}\n", flow.host_port));
    drop(silent);
}
