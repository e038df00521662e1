//! Configs of a network card.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::{assert_refused, fresh_with};

const F_MTU: u64 = 1 << 3;

#[test]
fn config_without_an_address_has_a_stable_one_of_its_own() {
    let ((first, _one), (second, _two)) = (fresh_with(json!({})), fresh_with(json!({})));
    let mac = first.config(0, 6);
    assert_eq!(mac, second.config(0, 6));
    assert_eq!(mac[0] & 3, 2, "locally administered, of one card");
}

#[test]
fn config_says_the_address_the_link_and_the_mtu() {
    let (driver, _peer) = fresh_with(json!({"mac": "52:54:00:aB:cd:ef", "mtu": 9000}));
    assert_eq!(driver.config(0, 12), [0x52, 0x54, 0, 0xab, 0xcd, 0xef, 1, 0, 1, 0, 0x28, 0x23]);
    assert_eq!(driver.offered() & F_MTU, F_MTU);
}

#[test]
fn config_with_a_bad_address_says_what_is_wrong() {
    let with = |mac: &str| json!({"backend": {"fd": 3}, "mac": mac});
    assert_refused(
        with("53:54:00:12:34:56"),
        ".mac: 53:54:00:12:34:56 is a multicast address; a unicast one could start with 52",
    );
    assert_refused(
        with("00:00:00:00:00:00"),
        ".mac: 00:00:00:00:00:00 isn't a valid MAC address of a card, choose another or leave it out",
    );
    let malformed = r#"isn't six bytes such as "52:54:00:12:34:56""#;
    assert_refused(with("52:54:00:12:34"), &format!(".mac: \"52:54:00:12:34\" {malformed}"));
    assert_refused(with("52:54:00:12:34:5g"), &format!(".mac: \"52:54:00:12:34:5g\" {malformed}"));
    assert_refused(with("52:54:00:12:34:56:7"), &format!(".mac: \"52:54:00:12:34:56:7\" {malformed}"));
    assert_refused(with("52:54:00:12:34:+5"), &format!(".mac: \"52:54:00:12:34:+5\" {malformed}"));
}

#[test]
fn config_with_a_backend_that_there_is_not_names_those_that_there_are() {
    assert_refused(
        json!({"backend": "slirp"}),
        r#".backend: unknown value "slirp", expected one of "tap", "user", "passt", "fd""#,
    );
    assert_refused(json!({}), r#": "backend" is missing, add "user" or an object such as {"tap": "tap0"}"#);
}

#[test]
fn config_with_numbers_out_of_range_is_refused() {
    let with = |field: &str, value: u32| {
        let mut fields = json!({"backend": {"fd": 3}});
        fields[field] = json!(value);
        fields
    };
    assert_refused(with("mtu", 67), ".mtu: expected a whole number from 68 to 65535, found the number 67");
    assert_refused(with("queues", 0), ".queues: expected a whole number from 1 to 16, found the number 0");
    assert_refused(
        with("queues", 5),
        ".queues: 5 queue pairs are more than the vCPUs or more than 16, at most 4",
    );
    assert_refused(with("queues", 2), ".queues: a descriptor has a single queue pair, remove \"queues\"");
}

#[test]
fn config_with_a_descriptor_that_carries_no_frames_is_refused() {
    let file = File::open("/dev/null").unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let with = |fd: i32| json!({"backend": {"fd": fd}});
    let of = |fd: i32, what: &str| format!(".backend.fd: descriptor {fd} {what}");
    assert_refused(with(file.as_raw_fd()), &of(file.as_raw_fd(), "is neither a TAP nor a socket"));
    assert_refused(
        with(stream.as_raw_fd()),
        &of(stream.as_raw_fd(), "is a socket that doesn't keep packets apart"),
    );
    assert_refused(
        with(1 << 30),
        &of(
            1 << 30,
            "isn't open: the monitor didn't inherit it; pass it to the monitor, or correct the number",
        ),
    );
    assert_refused(
        with(1),
        ".backend.fd: 1 can't be used for frames: 0 to 2 are the monitor's standard streams",
    );
}

#[test]
fn config_with_a_name_that_no_interface_has_is_refused() {
    let with = |name: &str| json!({"backend": {"tap": name}});
    let refused = |name: &str| {
        format!(
            ".backend.tap: {name:?} isn't a valid interface name: use 1 to 15 characters, none of \"/%:\""
        )
    };
    assert_refused(with(""), &refused(""));
    assert_refused(with("tap%d"), &refused("tap%d"));
    assert_refused(with("../eth0"), &refused("../eth0"));
    assert_refused(with("a-name-too-long0"), &refused("a-name-too-long0"));
}

#[test]
fn config_with_vhost_that_the_kernel_cannot_serve_is_refused() {
    let (_peer, theirs) = super::pair();
    assert_refused(
        json!({"backend": {"fd": theirs.as_raw_fd()}, "vhost": true}),
        ".vhost: requires a TAP, and this is a socket: remove it, or use a TAP",
    );
    assert_refused(
        json!({"backend": "user", "vhost": true}),
        ".vhost: requires a TAP, and this is the user backend: remove it, or use a TAP",
    );
    assert_refused(
        json!({"backend": {"passt": "/nowhere"}, "vhost": true}),
        ".vhost: requires a TAP, and this is a passt: remove it, or use a TAP",
    );
    assert_refused(
        json!({"backend": {"tap": "tap0"}, "vhost": true, "limits": {"operations_per_second": 7}}),
        ".vhost: conflicts with \"limits\", which the kernel doesn't support: remove one of them",
    );
}
