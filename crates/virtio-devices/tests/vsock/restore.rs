//! A guest that is restored: its connections are gone, and it is told.

use serde_json::json;
use tempfile::TempDir;
use vmm_virtio_devices::vsock::packet::Op;

use super::guest::{EVENTQ, Guest};
use super::{GUEST_PORT, MOMENT, client, from_host, line, read_all, running, try_open};

/// The guest continues with a device whose socket is in another directory.
fn restored(guest: Guest) -> (Guest, TempDir) {
    let directory = TempDir::new().unwrap();
    let device = try_open(directory.path(), json!({"path": "v.sock"})).unwrap();
    (guest.moved(device), directory)
}

#[test]
fn restored_guest_is_told_that_its_connections_are_gone() {
    let (mut guest, directory) = running();
    (0..2).for_each(|_| guest.give_event_buffer());
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    let (mut guest, _elsewhere) = restored(guest);
    assert_eq!(
        guest.driver.queue(EVENTQ).wait_used().written(),
        [0; 4],
        "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET"
    );
    assert_eq!(read_all(&mut client), b"");
    guest.give_event_buffer();
    guest.send_data(&mut flow, b"x");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(guest.driver.queue(EVENTQ).try_used(), None, "it is told once");
}

/// Linux would reset a connection that it accepted before it handles the event.
#[test]
fn client_of_a_restored_guest_waits_until_the_guest_has_handled_the_event() {
    let (mut guest, directory) = running();
    guest.give_event_buffer();
    let (before, _client) = from_host(&mut guest, &directory);
    let (mut guest, elsewhere) = restored(guest);
    let mut waiting = client(&elsewhere, GUEST_PORT);
    guest.expect_nothing(10 * MOMENT);
    guest.driver.queue(EVENTQ).wait_used();
    guest.give_event_buffer();
    let flow = guest.accept();
    assert_eq!(line(&mut waiting), format!("OK {}\n", flow.host_port));
    assert_ne!(flow.host_port, before.host_port, "the guest may still know the other");
}

#[test]
fn restored_guest_without_a_buffer_for_the_event_is_served_and_told_later() {
    let (guest, _directory) = running();
    let (mut guest, elsewhere) = restored(guest);
    let mut early = client(&elsewhere, GUEST_PORT);
    let flow = guest.accept();
    assert_eq!(line(&mut early), format!("OK {}\n", flow.host_port));
    guest.give_event_buffer();
    assert_eq!(guest.driver.queue(EVENTQ).wait_used().written(), [0; 4]);
}

/// The event isn't for a plain pause, after which the connections go on.
#[test]
fn guest_that_was_saved_and_goes_on_is_not_told() {
    let (mut guest, directory) = running();
    guest.give_event_buffer();
    let (mut flow, _client) = from_host(&mut guest, &directory);
    guest.driver.suspend();
    guest.driver.save().unwrap();
    guest.driver.resume();
    let mut other = client(&directory, GUEST_PORT);
    let accepted = guest.accept();
    assert_eq!(line(&mut other), format!("OK {}\n", accepted.host_port));
    guest.send_op(&flow, Op::CreditRequest);
    guest.expect(&mut flow, Op::CreditUpdate);
    assert_eq!(guest.driver.queue(EVENTQ).try_used(), None);
}

/// Until it has handled the event, it is told by each restore.
#[test]
fn guest_that_is_restored_twice_is_told_twice() {
    let (mut guest, _directory) = running();
    (0..2).for_each(|_| guest.give_event_buffer());
    let (guest, _first) = restored(guest);
    let (mut guest, _second) = restored(guest);
    (0..2).for_each(|_| assert_eq!(guest.driver.queue(EVENTQ).wait_used().written(), [0; 4]));
}
