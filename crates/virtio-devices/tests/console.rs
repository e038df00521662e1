//! The console, driven through its registers and queues, with the test at the host's end of its port.

use std::os::fd::AsRawFd;
use std::path::Path;

use serde_json::{Value, json};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use vmm_virtio::testing::{Buf, DEADLINE, Driver};
use vmm_virtio::{EventFd, HostEnd, HostPort, Setting, TerminalSize, VirtioDevice};
use vmm_virtio_devices::KINDS;

const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;
const F_SIZE: u64 = 1;
/// Capacity of a port for the guest's output.
const OUTPUT_LEN: usize = 64 << 10;

fn try_open(fields: Value) -> Result<Box<dyn VirtioDevice>, String> {
    let entry = KINDS.iter().find(|entry| entry.name == "console").unwrap();
    let setting = Setting { directory: Path::new("/vms"), vcpus: 1, id: "console0", plan_only: false };
    entry.open(fields, &setting).map_err(|error| error.to_string())
}

fn host_end(fields: Value) -> HostEnd {
    try_open(fields).unwrap().port().unwrap().end().clone()
}

/// A driver with an uninitialised device, and the host's end of the port.
fn fresh() -> (Driver, HostPort) {
    let mut device = try_open(json!({"target": "none"})).unwrap();
    let host = device.port().unwrap();
    assert!(device.port().is_none(), "there is one host's half");
    (Driver::new(device, 3), host)
}

fn running() -> (Driver, HostPort) {
    let (mut driver, host) = fresh();
    driver.init(F_SIZE);
    (driver, host)
}

/// Waits until an eventfd is written, and reads it.
fn wait(event: &EventFd) {
    let epoll = Epoll::new().unwrap();
    let readable = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), readable).unwrap();
    let timeout = DEADLINE.as_millis() as i32;
    assert_eq!(epoll.wait(timeout, &mut [EpollEvent::default()]).unwrap(), 1, "no news");
    event.read().unwrap();
}

/// Takes `len` bytes of output as they arrive.
fn take(host: &HostPort, len: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < len {
        let mut piece = vec![0; (len - taken.len()).min(1000)];
        match host.take(&mut piece) {
            0 => wait(host.output_ready()),
            count => taken.extend_from_slice(&piece[..count]),
        }
    }
    taken
}

/// Bytes that differ from their neighbours.
fn counted(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn config_without_a_target_is_a_pty() {
    assert_eq!(host_end(json!({})), HostEnd::Pty);
}

#[test]
fn config_paths_start_at_its_directory() {
    assert_eq!(host_end(json!({"target": {"file": "log"}})), HostEnd::File("/vms/log".into()));
    assert_eq!(host_end(json!({"target": {"socket": "/run/s"}})), HostEnd::Socket("/run/s".into()));
}

#[test]
fn config_with_an_unknown_target_names_the_field_and_the_nearest() {
    let error = try_open(json!({"target": "ptty"})).err().unwrap();
    assert_eq!(error, r#".target: unknown serial output "ptty", did you mean "pty"?"#);
}

#[test]
fn config_with_an_unknown_field_is_refused() {
    let error = try_open(json!({"targat": "pty"})).err().unwrap();
    assert_eq!(error, ".targat: unknown field, did you mean \"target\"?");
}

#[test]
fn output_arrives_whole_and_its_chain_comes_back_empty() {
    let (mut driver, host) = running();
    let used = driver.queue(TRANSMITQ).request(&[Buf::Read(b"hello, "), Buf::Read(b"host")]);
    assert_eq!(used.len, 0);
    assert_eq!(take(&host, 11), b"hello, host");
    let counters = driver.control().counters();
    assert_eq!((counters.requests.get(), counters.bytes_out.get()), (1, 11));
}

#[test]
fn output_of_a_megabyte_arrives_whole() {
    let (mut driver, host) = running();
    host.reader_came();
    let all = counted(1 << 20);
    let mut taken = Vec::new();
    for chain in all.chunks(OUTPUT_LEN) {
        driver.queue(TRANSMITQ).add(&[Buf::Read(chain)]);
        driver.queue(TRANSMITQ).kick();
    }
    taken.extend(take(&host, all.len()));
    assert!(taken == all);
    (0..16).for_each(|_| _ = driver.queue(TRANSMITQ).wait_used());
    assert!(host.is_drained());
    assert_eq!(host.lost(), 0);
}

#[test]
fn output_of_one_chain_longer_than_the_port_arrives_whole() {
    let (mut driver, host) = running();
    host.reader_came();
    let all = counted(5 * OUTPUT_LEN + 7);
    driver.queue(TRANSMITQ).add(&[Buf::Read(&all)]);
    driver.queue(TRANSMITQ).kick();
    assert!(take(&host, all.len()) == all);
    driver.queue(TRANSMITQ).wait_used();
}

#[test]
fn output_of_a_long_chain_that_is_suspended_goes_on_where_it_stopped() {
    let (mut driver, host) = running();
    host.reader_came();
    let all = counted(3 * OUTPUT_LEN);
    driver.queue(TRANSMITQ).add(&[Buf::Read(&all)]);
    driver.queue(TRANSMITQ).kick();
    let mut taken = take(&host, 100);
    driver.suspend();
    driver.resume();
    taken.extend(take(&host, all.len() - 100));
    assert!(taken == all);
    driver.queue(TRANSMITQ).wait_used();
}

#[test]
fn output_that_nobody_takes_stays_in_the_queue() {
    let (mut driver, host) = running();
    host.reader_came();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&counted(OUTPUT_LEN))]);
    driver.queue(TRANSMITQ).add(&[Buf::Read(b"more")]);
    driver.queue(TRANSMITQ).kick();
    // Afterwards the device has finished all work.
    driver.suspend();
    assert!(driver.queue(TRANSMITQ).try_used().is_none());
    assert!(!host.is_drained());
    driver.resume();
    take(&host, OUTPUT_LEN);
    driver.queue(TRANSMITQ).wait_used();
    assert_eq!(take(&host, 4), b"more");
    // The device reports it a moment after its last bytes.
    while !host.is_drained() {
        wait(host.output_ready());
    }
}

#[test]
fn output_that_nobody_takes_does_not_keep_the_driver_from_a_reset() {
    let (mut driver, host) = running();
    host.reader_came();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&counted(OUTPUT_LEN))]);
    driver.queue(TRANSMITQ).add(&[Buf::Read(b"more")]);
    driver.queue(TRANSMITQ).kick();
    driver.init(F_SIZE);
    assert!(take(&host, OUTPUT_LEN) == counted(OUTPUT_LEN));
    driver.queue(TRANSMITQ).request(&[Buf::Read(b"new")]);
    assert_eq!(take(&host, 3), b"new");
}

#[test]
fn output_without_a_reader_is_taken_and_the_newest_kept() {
    let (mut driver, host) = running();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&[b'a'; OUTPUT_LEN])]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(b"bcd")]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&vec![b'e'; 3 * OUTPUT_LEN])]);
    assert_eq!(host.lost(), 3 * OUTPUT_LEN as u64 + 3);
    assert_eq!(take(&host, OUTPUT_LEN), vec![b'e'; OUTPUT_LEN]);
}

#[test]
fn output_that_waits_goes_on_when_the_reader_leaves() {
    let (mut driver, host) = running();
    host.reader_came();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&counted(OUTPUT_LEN))]);
    driver.queue(TRANSMITQ).add(&[Buf::Read(b"more")]);
    driver.queue(TRANSMITQ).kick();
    host.reader_left();
    driver.queue(TRANSMITQ).wait_used();
    assert_eq!(host.lost(), 4);
}

#[test]
fn input_before_the_driver_waits_in_the_host() {
    let (mut driver, host) = fresh();
    assert_eq!((host.room(), host.send(b"typed")), (0, 0));
    driver.init(0);
    driver.queue(RECEIVEQ).add(&[Buf::Write(16)]);
    driver.queue(RECEIVEQ).kick();
    wait(host.wants_input());
    assert_eq!(host.send(b"typed"), 5);
    assert_eq!(driver.queue(RECEIVEQ).wait_used().written(), b"typed");
    assert_eq!(driver.control().counters().bytes_in.get(), 5);
}

#[test]
fn input_is_asked_for_only_while_there_is_a_buffer() {
    let (mut driver, host) = running();
    assert_eq!(host.room(), 0);
    driver.queue(RECEIVEQ).add(&[Buf::Write(4)]);
    driver.queue(RECEIVEQ).kick();
    wait(host.wants_input());
    assert_eq!(host.send(b"typed"), 5);
    assert_eq!(driver.queue(RECEIVEQ).wait_used().written(), b"type");
    driver.suspend();
    assert_eq!(host.room(), 0);
    driver.resume();
    driver.queue(RECEIVEQ).add(&[Buf::Write(4)]);
    driver.queue(RECEIVEQ).kick();
    assert_eq!(driver.queue(RECEIVEQ).wait_used().written(), b"d");
}

#[test]
fn input_of_64_kib_arrives_whole_through_small_buffers() {
    let (mut driver, host) = running();
    let all = counted(64 << 10);
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < all.len() {
        driver.queue(RECEIVEQ).add(&[Buf::Write(100), Buf::Write(900)]);
        driver.queue(RECEIVEQ).kick();
        // The eventfd may report room that has been used up meanwhile.
        while host.room() == 0 && sent == got.len() {
            wait(host.wants_input());
        }
        sent += host.send(&all[sent..]);
        got.extend_from_slice(driver.queue(RECEIVEQ).wait_used().written());
    }
    assert!(got == all);
}

#[test]
fn input_survives_a_reset() {
    let (mut driver, host) = running();
    driver.queue(RECEIVEQ).add(&[Buf::Write(1)]);
    driver.queue(RECEIVEQ).kick();
    wait_for_room(&host);
    assert_eq!(host.send(b"ab"), 2);
    assert_eq!(driver.queue(RECEIVEQ).wait_used().written(), b"a");
    driver.init(0);
    let used = driver.queue(RECEIVEQ).request(&[Buf::Write(8)]);
    assert_eq!(used.written(), b"b");
}

fn wait_for_room(host: &HostPort) {
    while host.room() == 0 {
        wait(host.wants_input());
    }
}

#[test]
fn size_is_in_the_configuration_from_the_start() {
    let (mut driver, host) = fresh();
    host.resize(TerminalSize { columns: 80, rows: 25 });
    assert_eq!(driver.config(0, 4), [80, 0, 25, 0]);
    driver.init(F_SIZE);
    // Linux reads it only when notified.
    driver.wait_config_change();
}

#[test]
fn size_that_changes_is_told() {
    let (mut driver, host) = running();
    host.resize(TerminalSize { columns: 132, rows: 300 });
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), [132, 0, 0x2c, 1]);
    host.resize(TerminalSize { columns: 131, rows: 300 });
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), [131, 0, 0x2c, 1]);
}

#[test]
fn size_is_not_told_to_a_driver_that_did_not_take_it() {
    let (mut driver, host) = fresh();
    driver.init(0);
    host.resize(TerminalSize { columns: 132, rows: 50 });
    driver.queue(TRANSMITQ).request(&[Buf::Read(b"x")]);
    driver.suspend();
    assert_eq!(driver.control().counters().interrupts.get(), 1, "that of the chain");
}

#[test]
fn size_that_a_user_sets_is_told_and_reported() {
    let (mut driver, _host) = running();
    driver.update(json!({"size": {"columns": 100, "rows": 40}})).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), [100, 0, 40, 0]);
    assert_eq!(driver.report()["size"], json!({"columns": 100, "rows": 40}));
    let refusal = |size| driver.update(json!({"size": size})).unwrap_err().to_string();
    assert_eq!(
        refusal(json!({"columns": 0, "rows": 40})),
        ".size.columns: expected a whole number from 1 to 65535, found the number 0"
    );
    assert_eq!(
        refusal(json!({"columns": 100})),
        ".size: \"rows\" is missing, add a whole number from 1 to 65535"
    );
    assert_eq!(driver.config(0, 4), [100, 0, 40, 0]);
}

#[test]
fn chains_of_the_wrong_direction_come_back_empty() {
    let (mut driver, host) = running();
    assert_eq!(driver.queue(RECEIVEQ).request(&[Buf::Read(b"to nobody")]).len, 0);
    assert_eq!(driver.queue(TRANSMITQ).request(&[Buf::Write(16)]).len, 0);
    assert!(host.is_drained());
}

#[test]
fn driver_that_breaks_the_rules_leaves_nobody_waiting_for_its_output() {
    let (mut driver, host) = running();
    host.reader_came();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&counted(OUTPUT_LEN))]);
    driver.queue(TRANSMITQ).add(&[Buf::Read(b"more")]);
    driver.queue(TRANSMITQ).kick();
    let next = driver.queue(TRANSMITQ).available_index().wrapping_add(1000);
    driver.queue(TRANSMITQ).set_available_index(next);
    take(&host, OUTPUT_LEN);
    driver.wait_needs_reset();
    assert!(host.is_drained());
}

#[test]
fn restored_console_has_its_size_and_the_input_that_waited() {
    let (mut driver, host) = running();
    host.resize(TerminalSize { columns: 132, rows: 50 });
    driver.queue(RECEIVEQ).add(&[Buf::Write(4)]);
    driver.queue(RECEIVEQ).kick();
    if host.room() == 0 {
        wait(host.wants_input());
    }
    assert_eq!(host.send(b"abcdefgh"), 8);
    assert_eq!(driver.queue(RECEIVEQ).wait_used().written(), b"abcd");
    let mut device = try_open(json!({"target": "none"})).unwrap();
    let _host = device.port();
    let mut driver = driver.move_to(device);
    assert_eq!(driver.config(0, 4), [132, 0, 50, 0]);
    assert_eq!(driver.queue(RECEIVEQ).request(&[Buf::Write(8)]).written(), b"efgh");
}

/// Output that the first host has taken isn't sent to the second.
#[test]
fn restored_console_continues_a_long_chain_where_it_was() {
    let (mut driver, host) = running();
    host.reader_came();
    let all = counted(OUTPUT_LEN + 1000);
    driver.queue(TRANSMITQ).add(&[Buf::Read(&all)]);
    driver.queue(TRANSMITQ).kick();
    wait(host.output_ready());
    let mut device = try_open(json!({"target": "none"})).unwrap();
    let other = device.port().unwrap();
    let mut driver = driver.move_to(device);
    let first = take(&host, host.queued());
    assert!(!first.is_empty() && first.len() < all.len(), "{} bytes", first.len());
    let second = take(&other, all.len() - first.len());
    assert!([first, second].concat() == all);
    driver.queue(TRANSMITQ).wait_used();
}
