//! Credit: neither side sends more than the other one can keep (virtio 1.2 §5.10.6.3).

use std::io::Write;

use vmm_virtio_devices::vsock::packet::{Header, Op, SHUT_SEND};

use super::guest::{BUF_ALLOC, Flow, Guest};
use super::{HOST_PORT, MOMENT, counted, from_guest, from_host, listener, read, read_all, running};

/// Credit per connection given by the device.
const PROMISE: u32 = 256 << 10;

/// Sends data until the socket accepts no more and the device has used up its credit. Returns the number of
/// bytes.
fn fill(guest: &mut Guest, flow: &mut Flow) -> usize {
    let mut sent = 0;
    loop {
        guest.settle();
        while let Some((header, _)) = guest.try_packet() {
            assert_eq!(header.op, Op::CreditUpdate as u16);
            flow.learn(&header);
        }
        if flow.room() == 0 {
            // The device's latest view.
            guest.send_op(flow, Op::CreditRequest);
            guest.expect(flow, Op::CreditUpdate);
            if flow.room() == 0 {
                return sent;
            }
        }
        let len = flow.room().min(10_000) as usize;
        guest.send_data(flow, &counted(sent + len)[sent..]);
        sent += len;
    }
}

#[test]
fn data_that_the_host_does_not_read_is_kept_as_promised_and_arrives_later() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    assert_eq!(flow.peer_buf_alloc, PROMISE);
    let sent = fill(&mut guest, &mut flow);
    assert!(sent > PROMISE as usize, "the socket took some of it too");
    assert_eq!(flow.sent.wrapping_sub(flow.peer_forwarded), PROMISE);
    guest.send_shutdown(&flow, SHUT_SEND);
    assert_eq!(read_all(&mut socket), counted(sent));
}

#[test]
fn guest_that_waits_for_room_is_told_of_it() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    let sent = fill(&mut guest, &mut flow);
    assert_eq!(read(&mut socket, sent), counted(sent));
    // All but the last quarter, for which no update is due.
    while flow.room() <= PROMISE / 4 * 3 {
        guest.expect(&mut flow, Op::CreditUpdate);
    }
    guest.send_data(&mut flow, b"and on");
    assert_eq!(read(&mut socket, 6), b"and on");
}

#[test]
fn guest_that_sends_more_than_was_promised_is_cut_off() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    let sent = fill(&mut guest, &mut flow);
    guest.send_data(&mut flow, b"x");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(guest.driver.control().counters().errors.get(), 1);
    let arrived = read_all(&mut socket);
    assert_eq!(arrived, counted(sent)[..arrived.len()], "and nothing that wasn't kept");
}

#[test]
fn data_of_the_host_beyond_the_guests_credit_waits() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    // The tests' guest never sends more than its credit.
    flow.buf_alloc = 1000;
    guest.send_op(&flow, Op::CreditUpdate);
    guest.settle();
    client.write_all(&counted(3000)).unwrap();
    let (_, first) = guest.expect(&mut flow, Op::Rw);
    assert_eq!(first, counted(1000));
    guest.expect(&mut flow, Op::CreditRequest);
    guest.expect_nothing(MOMENT);
    flow.forwarded = 1;
    guest.send_op(&flow, Op::CreditUpdate);
    let (_, second) = guest.expect(&mut flow, Op::Rw);
    assert_eq!(second, counted(1001)[1000..]);
    guest.expect(&mut flow, Op::CreditRequest);
    flow.forwarded = 1001;
    guest.send_op(&flow, Op::CreditUpdate);
    let (_, third) = guest.expect(&mut flow, Op::Rw);
    assert_eq!(third, counted(2001)[1001..]);
}

#[test]
fn guest_without_credit_that_says_so_again_and_again_is_asked_once() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    flow.buf_alloc = 0;
    guest.send_op(&flow, Op::CreditUpdate);
    guest.settle();
    client.write_all(b"data").unwrap();
    guest.expect(&mut flow, Op::CreditRequest);
    (0..10).for_each(|_| guest.send_op(&flow, Op::CreditUpdate));
    guest.expect_nothing(MOMENT);
}

#[test]
fn guest_that_claims_to_have_read_what_was_never_sent_gets_nothing_more() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    let lie = Header { fwd_cnt: 1, ..flow.header(Op::CreditUpdate) };
    guest.send(&lie, &[]);
    guest.settle();
    client.write_all(b"data").unwrap();
    guest.expect(&mut flow, Op::CreditRequest);
    guest.expect_nothing(MOMENT);
    guest.send_op(&flow, Op::CreditUpdate);
    assert_eq!(guest.expect_data(&mut flow, 4), b"data");
}

#[test]
fn guest_that_asks_for_credit_is_told() {
    let (mut guest, directory) = running();
    let (mut flow, _client) = from_host(&mut guest, &directory);
    guest.send_data(&mut flow, &counted(100));
    guest.send_op(&flow, Op::CreditRequest);
    let (header, _) = guest.expect(&mut flow, Op::CreditUpdate);
    assert_eq!((header.buf_alloc, header.fwd_cnt), (PROMISE, 100));
}

#[test]
fn guest_without_buffers_gets_everything_when_it_has_some() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.is_generous = false;
    let all = counted(BUF_ALLOC as usize);
    let written = all.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&written).unwrap();
        client
    });
    guest.wait_for_all_buffers();
    let mut bytes = Vec::new();
    while let Some((header, data)) = guest.try_packet() {
        flow.learn(&header);
        bytes.extend(data);
    }
    assert!(!bytes.is_empty() && bytes.len() <= 64 * 4096);
    guest.expect_nothing(MOMENT);
    guest.is_generous = true;
    guest.give_buffers();
    let left = all.len() - bytes.len();
    bytes.extend(guest.expect_data(&mut flow, left));
    assert_eq!(bytes, all);
    writer.join().unwrap();
}

#[test]
fn guest_that_sends_no_more_than_it_would_keep_itself_is_told_of_room() {
    let (mut guest, directory) = running();
    // SO_VM_SOCKETS_BUFFER_SIZE: Linux's driver has no more than that in flight, whatever its credit
    // (net/vmw_vsock/virtio_transport_common.c, virtio_transport_tx_buf_size), and never requests credit.
    guest.buf_alloc = 4096;
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    guest.send_data(&mut flow, &counted(4096));
    assert_eq!(read(&mut socket, 4096), counted(4096));
    let (header, _) = guest.expect(&mut flow, Op::CreditUpdate);
    assert_eq!(header.fwd_cnt, 4096);
    guest.expect_nothing(MOMENT);
}

#[test]
fn guest_that_keeps_nothing_itself_is_told_of_room_once_for_each_packet() {
    let (mut guest, directory) = running();
    guest.buf_alloc = 0;
    let (mut flow, _socket) = from_guest(&mut guest, &directory);
    // The host may have data for it.
    guest.expect(&mut flow, Op::CreditRequest);
    guest.send_data(&mut flow, b"x");
    guest.expect(&mut flow, Op::CreditUpdate);
    guest.expect_nothing(MOMENT);
}

#[test]
fn data_that_hosts_do_not_read_is_kept_by_the_kernel_as_little_for_many_connections() {
    let (mut guest, directory) = running();
    let listener = listener(&directory, HOST_PORT);
    // After the 256 that get 256 KiB each.
    let _others: Vec<_> = (0..256).map(|_| (guest.connect(HOST_PORT), listener.accept().unwrap())).collect();
    let mut flow = guest.connect(HOST_PORT);
    let _socket = listener.accept().unwrap();
    assert_eq!(flow.peer_buf_alloc, 16 << 10);
    let sent = fill(&mut guest, &mut flow);
    // 16 KiB here, and by default 208 KiB in the kernel (net.core.wmem_default).
    assert!(sent <= 64 << 10, "{sent} bytes are kept");
}

#[test]
fn data_of_hosts_clients_is_kept_by_the_kernel_as_little_for_many_connections() {
    let (mut guest, directory) = running();
    let _others: Vec<_> = (0..256).map(|_| from_host(&mut guest, &directory)).collect();
    let (mut flow, _client) = from_host(&mut guest, &directory);
    assert_eq!(flow.peer_buf_alloc, 16 << 10);
    let sent = fill(&mut guest, &mut flow);
    assert!(sent <= 64 << 10, "{sent} bytes are kept");
}
