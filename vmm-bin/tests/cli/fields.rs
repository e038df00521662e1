//! Invalid values of a device's fields: each message has the position in the file, the field's path, the value and the remedy. These
//! tests compare whole messages; crates/virtio-devices has a test for each type of value.

use crate::bench::{BAD_CONFIG, Bench, USAGE, complaint};

/// Asserts that a config whose third line is this device is rejected. There is a disk of 1 MiB called disk.img.
#[track_caller]
fn assert_bad(device: &str, message: &str) {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    let config = format!("{{\"boot\": {{\"kernel\": \"kernel\"}},\n\"devices\": [\n{{{device}}}]}}\n");
    assert_eq!(bench.run_config(&config), complaint(BAD_CONFIG, message));
}

#[track_caller]
fn assert_bad_disk(fields: &str, message: &str) {
    assert_bad(&format!(r#""type": "block", "path": "disk.img", {fields}"#), message);
}

#[track_caller]
fn assert_bad_card(fields: &str, message: &str) {
    assert_bad(&format!(r#""type": "net", "backend": "user", {fields}"#), message);
}

#[test]
fn disk_with_a_wrong_value_is_refused_with_its_line() {
    assert_bad_disk(
        r#""serial": "123456789012345678901""#,
        r#"vm.json:3:71: devices[0].serial: "123456789012345678901" has 21 bytes, shorten it to 20 or fewer"#,
    );
    assert_bad_disk(
        r#""serial": "disk\t1""#,
        r#"vm.json:3:57: devices[0].serial: "disk\t1" contains characters other than printable ASCII"#,
    );
    assert_bad_disk(
        r#""queues": 2"#,
        "vm.json:3:49: devices[0].queues: 2 queues are more than the machine has vCPUs, at most 1",
    );
    assert_bad_disk(
        r#""limits": {"bytes_per_second": "0"}"#,
        "vm.json:3:72: devices[0].limits.bytes_per_second: 0 lets nothing through, leave it out for no limit",
    );
    assert_bad_disk(
        r#""limits": {"operations_burst": 7}"#,
        "vm.json:3:70: devices[0].limits.operations_burst: 7 limits nothing without \"operations_per_second\", add that",
    );
    assert_bad_disk(
        r#""overlay": "temp", "read_only": true"#,
        "vm.json:3:55: devices[0].overlay: conflicts with \"read_only\", remove one of the two",
    );
    assert_bad_disk(
        r#""backing": ["base.img"]"#,
        "vm.json:3:50: devices[0].backing: only a qcow2 image has backing files, remove it",
    );
}

#[test]
fn disk_with_a_value_of_another_type_is_refused_with_its_line() {
    assert_bad_disk(
        r#""limits": 5"#,
        r#"vm.json:3:49: devices[0].limits: expected an object such as {"bytes_per_second": "10M"}, found the number 5"#,
    );
    assert_bad_disk(
        r#""limits": [1, 2]"#,
        r#"vm.json:3:49: devices[0].limits: expected an object such as {"bytes_per_second": "10M"}, found a list"#,
    );
    assert_bad_disk(
        r#""direct": null"#,
        "vm.json:3:52: devices[0].direct: expected true or false, found null",
    );
    assert_bad_disk(
        r#""readonly": true"#,
        r#"vm.json:3:54: devices[0].readonly: unknown field, did you mean "read_only"?"#,
    );
}

#[test]
fn card_with_a_wrong_value_is_refused_with_its_line() {
    assert_bad_card(
        r#""mac": "53:54:00:12:34:56""#,
        "vm.json:3:61: devices[0].mac: 53:54:00:12:34:56 is a multicast address; a unicast one could start with 52",
    );
    assert_bad_card(
        r#""allow": ["dns", "tcp:*"]"#,
        r#"vm.json:3:59: devices[0].allow[1]: "tcp:*" says no port: write "tcp:*:443", "tcp:*:8000-8100" or "tcp:*:*""#,
    );
    assert_bad_card(
        r#""forward": ["8080:80", "8081"]"#,
        "vm.json:3:64: devices[0].forward[1]: \"8081\" has no port of the guest: write \"8081:80\", the host's port and then the \
         guest's",
    );
    assert_bad_card(
        r#""dns": "example.com""#,
        "vm.json:3:55: devices[0].dns: \"example.com\" isn't a server's address: write one as \"192.0.2.1\" or \"127.0.0.1:5353\"",
    );
    assert_bad_card(
        r#""queues": 2"#,
        "vm.json:3:46: devices[0].queues: 2 queue pairs are more than the vCPUs or more than 16, at most 1",
    );
    assert_bad_card(
        r#""mtu": 1000"#,
        "vm.json:3:46: devices[0].mtu: an MTU of 1000 is less than IPv6 allows: make it 1280 or more",
    );
    assert_bad_card(
        r#""vhost": true"#,
        "vm.json:3:48: devices[0].vhost: requires a TAP, and this is the user backend: remove it, or use a TAP",
    );
}

#[test]
fn card_with_a_wrong_backend_is_refused_with_its_line() {
    assert_bad(
        r#""type": "net", "backend": {"tap": "tap%d"}"#,
        r#"vm.json:3:42: devices[0].backend.tap: "tap%d" isn't a valid interface name: use 1 to 15 characters, none of "/%:""#,
    );
    assert_bad(
        r#""type": "net", "backend": {"fd": 1}"#,
        "vm.json:3:35: devices[0].backend.fd: 1 can't be used for frames: 0 to 2 are the monitor's standard streams",
    );
    assert_bad(
        r#""type": "net", "backend": {"passt": "none"}, "dns": "192.0.2.1""#,
        r#"vm.json:3:64: devices[0].dns: only "backend": "user" supports this; use that, or remove the field"#,
    );
}

#[test]
fn other_device_with_a_wrong_value_is_refused_with_its_line() {
    assert_bad(
        r#""type": "vsock", "path": "v.sock", "cid": 2"#,
        "vm.json:3:44: devices[0].cid: expected a whole number from 3 to 4294967294, found the number 2",
    );
    assert_bad(
        r#""type": "vsock", "cid": 3"#,
        r#"vm.json:3:1: devices[0]: "path" is missing, add that of the Unix socket, such as "vm.sock", or set "vhost""#,
    );
    assert_bad(
        r#""type": "balloon", "size": "5000""#,
        r#"vm.json:3:34: devices[0].size: 5000 isn't a multiple of the page size, 4K: try 4K"#,
    );
    assert_bad(
        r#""type": "pmem", "path": "disk.img", "read_only": "yes""#,
        r#"vm.json:3:55: devices[0].read_only: expected true or false, found the string "yes""#,
    );
    assert_bad(
        r#""type": "console", "target": {"fiel": "a"}"#,
        r#"vm.json:3:42: devices[0].target.fiel: unknown field, did you mean "file"?"#,
    );
    assert_bad(
        r#""type": "rng", "id": "a b""#,
        r#"vm.json:3:27: devices[0].id: "a b" isn't a valid id, use 1 to 32 letters, digits, "-", "_" or ".""#,
    );
}

/// A port in the file has a position there, even if flags add further devices.
#[test]
fn port_is_reported_by_its_line_or_by_its_flag() {
    let bench = Bench::new();
    let devices = r#""devices": [{"type": "debug-console", "port": "0x3f8"}]"#;
    let run = |members: &str, flags: &[&str]| {
        bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}{members}}}"#));
        bench.run(&[&["--check", "--config", "vm.json"], flags].concat())
    };
    let taken = "0x3f8 belongs to the uart com1 (ports 0x3f8 to 0x3ff); choose another";
    let in_file = format!("vm.json:1:84: devices[0].port: {taken}");
    assert_eq!(run(&format!(", {devices}"), &[]), complaint(BAD_CONFIG, &in_file));
    let by_flag = format!("--debug-console: {taken}");
    assert_eq!(run("", &["--debug-console", "0x3f8"]), complaint(BAD_CONFIG, &by_flag));
    let twice = "--debug-exit: 0x3f8 is also the port of devices[0], choose another for one of them";
    assert_eq!(run(&format!(", {devices}"), &["--debug-exit", "0x3f8"]), complaint(USAGE, twice));
}

/// As for the file of a virtio console.
#[test]
fn serial_file_is_reported_by_its_line_or_by_its_flag() {
    let bench = Bench::new();
    let in_use = "file kernel: it is in use as a kernel; name another file";
    let config = r#"{"boot": {"kernel": "kernel"}, "serial": {"file": "kernel"}}"#;
    assert_eq!(bench.run_config(config), complaint(BAD_CONFIG, &format!("vm.json:1:42: serial {in_use}")));
    bench.file("vm.json", r#"{"boot": {"kernel": "kernel"}, "serial": "none"}"#);
    let ran = bench.run(&["--check", "--config", "vm.json", "--serial", "file:kernel"]);
    assert_eq!(ran, complaint(BAD_CONFIG, &format!("--serial {in_use}")));
}
