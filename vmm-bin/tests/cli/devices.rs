//! Invalid virtio devices, as the program reports them. Each kind has its own tests of its fields.

use std::os::unix::net::UnixListener;

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint, finish};

/// Checks a config with these devices, in a directory with a disk of 1 MiB called disk.img.
fn run(devices: &str) -> crate::bench::RunResult {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    bench.file("odd.img", vec![0; 1000]);
    bench.dir("dir");
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{devices}]}}"#));
    bench.run(&["--check", "--config", "vm.json"])
}

#[track_caller]
fn assert_bad(devices: &str, message: &str) {
    assert_eq!(run(devices), complaint(BAD_CONFIG, message));
}

#[test]
fn device_of_each_kind_is_planned() {
    let devices = r#"{"type": "block", "path": "disk.img"}, {"type": "rng"}, {"type": "balloon", "id": "air"},
                     {"type": "pmem", "path": "disk.img", "read_only": true}"#;
    // 1 MiB is no multiple of pmem's 2 MiB: the last of them is refused, so the others were taken.
    let message = run(devices).stderr;
    assert!(message.starts_with("error: vm.json:2:56: devices[3].path: disk.img "), "{message}");
    let planned =
        run(r#"{"type": "block", "path": "disk.img"}, {"type": "rng"}, {"type": "balloon", "id": "air"}"#);
    assert_eq!((planned.code, planned.stderr.as_str()), (Some(DONE), ""));
    let plan = planned.stdout;
    assert!(
        ["virtio block \"block0\", slot 1,", "rng \"rng0\", slot 2,", "\"air\", slot 3,"]
            .iter()
            .all(|word| plan.contains(word)),
        "{plan}"
    );
}

#[test]
fn device_that_is_unknown_names_the_nearest() {
    assert_bad(
        r#"{"type": "blok", "path": "x"}"#,
        r#"vm.json:1:58: devices[0].type: unknown device "blok", did you mean "block"?"#,
    );
}

/// Both connect to a passt that never sends anything.
#[test]
fn cards_with_the_same_address_are_named_with_both_places() {
    let bench = Bench::new();
    let _passt = UnixListener::bind(bench.path("lan.sock")).unwrap();
    let card = |id: &str, mac: &str| {
        format!(r#"{{"type": "net", "id": "{id}", "backend": {{"passt": "lan.sock"}}, "mac": "{mac}"}}"#)
    };
    let cards = format!(
        r#"{}, {{"type": "rng"}}, {}"#,
        card("lan", "52:54:00:ab:cd:ef"),
        card("wan", "52:54:00:AB:CD:EF")
    );
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{cards}]}}"#));
    let expected = "vm.json:1:241: devices[2].mac: address 52:54:00:ab:cd:ef is already used by devices[0].mac; change one of them";
    assert_eq!(bench.run(&["--check", "--config", "vm.json"]), complaint(BAD_CONFIG, expected));
}

#[test]
fn guests_ends_of_vsock_with_the_same_id_are_named_with_both_places() {
    let bench = Bench::new();
    let devices =
        r#"{"type": "vsock", "id": "a", "path": "a.sock"}, {"type": "vsock", "id": "b", "path": "b.sock"}"#;
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{devices}]}}"#));
    let expected =
        "vm.json:1:92: devices[1].cid: context id 3 is already used by devices[0].cid; change one of them";
    assert_eq!(bench.run(&["--check", "--config", "vm.json"]), complaint(BAD_CONFIG, expected));
}

/// Of two cards, and of one card. The conflict is found before any port is bound: the host would reject the second one with a less
/// helpful error.
#[test]
fn forwarded_ports_that_are_the_same_are_named_with_both_places() {
    let card = |forward: &str| format!(r#"{{"type": "net", "backend": "user", "forward": [{forward}]}}"#);
    let of_two = |first: &str, second: &str| format!("{}, {}", card(first), card(second));
    let message = "vm.json:1:178: devices[1].forward[1]: port of the host tcp:127.0.0.1:18081 is already used by \
                   devices[0].forward[0]; change one of them";
    assert_bad(&of_two(r#""18081:80""#, r#""1:1", "127.0.0.1:18081:81""#), message);
    let message = "vm.json:1:120: devices[0].forward[1]: port of the host udp:127.0.0.1:18081 is already used by \
                   devices[0].forward[0]; change one of them";
    assert_bad(&card(r#""udp:18081:80", "udp:18081:81""#), message);
    let message = "vm.json:1:169: devices[1].forward[0]: port of the host tcp:0.0.0.0:18081 is already used by \
                   devices[0].forward[0]; change one of them";
    assert_bad(&of_two(r#""18081:80""#, r#""0.0.0.0:18081:80""#), message);
}

#[test]
fn machines_own_disk_is_refused_as_its_log_and_its_metrics() {
    let bench = Bench::new();
    bench.file("disk.img", vec![0x5a; 1 << 20]);
    let disk = r#"{"type": "block", "path": "disk.img"}"#;
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{disk}]}}"#));
    let refused = |flag: &str| {
        let message = format!("{flag} disk.img: it is in use as a disk; name another file");
        assert_eq!(bench.run(&["-v", "--config", "vm.json", flag, "disk.img"]), complaint(USAGE, &message));
        assert!(
            std::fs::read(bench.path("disk.img")).unwrap() == vec![0x5a; 1 << 20],
            "the disk has changed"
        );
    };
    refused("--metrics");
    refused("--log-file");
}

/// A killed monitor leaves such a socket.
#[test]
fn dead_socket_of_a_vsock_stays_when_somebody_only_looks() {
    let bench = Bench::new();
    drop(UnixListener::bind(bench.path("v.sock")).expect("a socket"));
    let before = bench.names();
    let device = r#"{"type": "vsock", "path": "v.sock"}"#;
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{device}]}}"#));
    assert_eq!(bench.run(&["--check", "--config", "vm.json"]).code, Some(DONE));
    assert_eq!(bench.names(), [&before[..], &["vm.json".to_owned()]].concat());
}

/// The fields of a device are parsed by its kind, after the file; errors have a position in the file all the same.
#[test]
fn device_field_that_cannot_be_read_is_reported_with_its_line() {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    let disk = |fields: &str| {
        let text = format!(
            "{{\n  \"boot\": {{\"kernel\": \"kernel\"}},\n  \"devices\": [\n    {{\"type\": \"rng\"}},\n    {{\"type\": \
             \"block\", \"path\": \"disk.img\",\n     {fields}}}\n  ]\n}}\n"
        );
        bench.file("vm.json", text);
        let checked = bench.run(&["--check", "--config", "vm.json"]);
        assert_eq!(bench.run(&["--config", "vm.json"]), checked, "a start says the same");
        checked
    };
    let message = r#"vm.json:6:21: devices[1].format: unknown value "qcow", did you mean "qcow2"?"#;
    assert_eq!(disk(r#""format": "qcow""#), complaint(BAD_CONFIG, message));
    let message = r#"vm.json:6:21: devices[1].format: unknown value "vmdk", expected one of "raw", "qcow2""#;
    assert_eq!(disk(r#""format": "vmdk""#), complaint(BAD_CONFIG, message));
    let message = r#"vm.json:6:27: devices[1].overlay.tmp: unknown field, did you mean "temp"?"#;
    assert_eq!(disk(r#""overlay": {"tmp": "."}"#), complaint(BAD_CONFIG, message));
    let message = r#"vm.json:6:37: devices[1].limits.bytes_per_second: expected"#;
    let ran = disk(r#""limits": {"bytes_per_second": []}"#);
    assert!(ran.stderr.starts_with(&format!("error: {message}")), "{ran:?}");
}

/// The position of a missing field is that of the device.
#[test]
fn device_field_that_is_missing_is_reported_with_the_devices_line() {
    let bench = Bench::new();
    bench.dir("dir");
    bench.file("dir/vm.json", r#"{"boot": {"kernel": "../kernel"}, "devices": [{"type": "block"}]}"#);
    let message = r#"dir/vm.json:1:47: devices[0]: "path" is missing, add a path such as "dir/file""#;
    assert_eq!(bench.run(&["--check", "--config", "dir/vm.json"]), complaint(BAD_CONFIG, message));
}

#[test]
fn directory_for_temporary_files_that_is_missing_is_named_with_its_variable() {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    let run = |overlay: &str| {
        let disk = format!(r#"{{"type": "block", "path": "disk.img", "overlay": {overlay}}}"#);
        bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{disk}]}}"#));
        finish(bench.launch(&["--check", "--config", "vm.json"]).env("TMPDIR", "/nowhere"))
    };
    let message = "vm.json:1:98: devices[0].overlay: /nowhere, the directory for temporary files, doesn't exist: create it, or set TMPDIR to \
                   another";
    assert_eq!(run(r#""temp""#), complaint(BAD_CONFIG, message));
    let message = "vm.json:1:93: devices[0].overlay: missing doesn't exist: create it, or name another";
    assert_eq!(run(r#"{"temp_in": "missing"}"#), complaint(BAD_CONFIG, message));
}

#[test]
fn field_given_twice_inside_a_field_is_refused_with_its_line() {
    assert_bad(
        r#"{"type": "block", "path": "disk.img", "limits": {"operations_per_second": 1, "operations_per_second": 2}}"#,
        "vm.json:1:143: devices[0].limits.operations_per_second: given twice, keep one",
    );
}

/// The limit is that of setrlimit(2), whose signal SIGXFSZ kills by default.
#[test]
fn overlay_longer_than_a_file_may_be_is_refused() {
    let bench = Bench::new();
    bench.sparse("disk.img", 64 << 20);
    let disk = r#"{"type": "block", "path": "disk.img", "overlay": "temp"}"#;
    bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{disk}]}}"#));
    let limited = ["sh", "-c", r#"ulimit -f 4; exec "$0" "$@""#];
    let message = "vm.json:1:98: devices[0].overlay: a temporary file can't have the disk's 67108864 bytes: File too large (os error 27); raise ulimit -f, or use a smaller disk";
    let ran = finish(bench.launch(&["--check", "--config", "vm.json"]).wrapped(limited));
    assert_eq!(ran, complaint(BAD_CONFIG, message));
}

#[test]
fn disk_by_a_link_that_leads_nowhere_names_its_target() {
    let bench = Bench::new();
    bench.link("disk.img", "gone.img");
    let disk = r#"{"boot": {"kernel": "kernel"}, "devices": [{"type": "block", "path": "disk.img"}]}"#;
    let message = "vm.json:1:79: devices[0].path: disk.img is a symbolic link to gone.img, which doesn't exist: create that or correct the link";
    assert_eq!(bench.run_config(disk), complaint(BAD_CONFIG, message));
}

#[test]
fn disk_that_is_missing_is_named() {
    let message = "vm.json:1:79: devices[0].path: none.img doesn't exist, create it or correct the path";
    assert_bad(r#"{"type": "block", "path": "none.img"}"#, message);
}

/// The exit code blames the config, not the host, whatever field the path is in.
#[test]
fn paths_that_lead_to_themselves_are_the_configs_fault() {
    let bench = Bench::new();
    bench.link("loop", "loop");
    bench.dir("dir");
    let code = |member: &str| {
        bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, {member}}}"#));
        let ran = bench.run(&["--check", "--config", "vm.json"]);
        (ran.code, ran.stderr.contains("Too many levels") || ran.stderr.contains("leads to itself"))
    };
    let device = |fields: &str| code(&format!(r#""devices": [{{{fields}}}]"#));
    assert_eq!(device(r#""type": "block", "path": "loop""#), (Some(BAD_CONFIG), true));
    assert_eq!(device(r#""type": "block", "path": "loop/disk.img""#), (Some(BAD_CONFIG), true));
    assert_eq!(device(r#""type": "pmem", "path": "loop""#), (Some(BAD_CONFIG), true));
    assert_eq!(device(r#""type": "vsock", "path": "loop/v.sock""#), (Some(BAD_CONFIG), true));
    assert_eq!(device(r#""type": "net", "backend": {"passt": "loop"}"#), (Some(BAD_CONFIG), true));
    let overlay = device(r#""type": "block", "path": "kernel", "overlay": {"temp_in": "loop"}"#);
    assert_eq!(overlay.0, Some(BAD_CONFIG));
    let ran = bench.run(&["--check", "--config", "loop"]);
    assert_eq!(ran.code, Some(BAD_CONFIG), "{}", ran.stderr);
    let ran = bench.run(&["--check", "--kernel", "kernel", "--initrd", "loop"]);
    assert_eq!(ran.code, Some(BAD_CONFIG), "{}", ran.stderr);
}

#[test]
fn numbers_out_of_range_name_their_range() {
    let message =
        "vm.json:1:90: devices[0].mtu: expected a whole number from 68 to 65535, found the number 70000";
    assert_bad(r#"{"type": "net", "backend": "user", "mtu": 70000}"#, message);
    let message =
        "vm.json:1:83: devices[0].cid: expected a whole number from 3 to 4294967294, found the number -1";
    assert_bad(r#"{"type": "vsock", "path": "v", "cid": -1}"#, message);
    let message =
        "vm.json:1:96: devices[0].queues: expected a whole number from 1 to 16, found the number 65536";
    assert_bad(r#"{"type": "block", "path": "disk.img", "queues": 65536}"#, message);
    let message = "vm.json:1:120: devices[0].limits.operations_per_second: expected a whole number from 0 to \
                   18446744073709551615, found the number 1.5";
    assert_bad(r#"{"type": "block", "path": "disk.img", "limits": {"operations_per_second": 1.5}}"#, message);
}

#[test]
fn disk_that_is_a_directory_is_named_by_its_place() {
    let message = "vm.json:1:91: devices[1].path: dir is a directory, name an image file or a block device";
    assert_bad(r#"{"type": "rng"}, {"type": "block", "path": "dir"}"#, message);
}

#[test]
fn disk_of_no_whole_sectors_says_how_to_mend_it() {
    let message = "vm.json:1:78: devices[0].path: odd.img has 1000 bytes, not a multiple of the sector size, 512: try truncate -s 1024 odd.img";
    assert_bad(r#"{"type": "block", "path": "odd.img"}"#, message);
}

#[test]
fn disk_twice_for_writing_is_used_twice() {
    let message = "vm.json:1:118: devices[1].path: disk.img is used twice in this machine: remove one of the two, or set \"read_only\" for \
                   both, or use an \"overlay\"";
    assert_bad(r#"{"type": "block", "path": "disk.img"}, {"type": "block", "path": "disk.img"}"#, message);
    let message = "vm.json:1:118: devices[1].path: disk.img is used twice in this machine, and written: remove one of the two, or set \
                   \"read_only\" for both, or use an \"overlay\"";
    let second = r#"{"type": "block", "path": "disk.img", "overlay": "temp"}"#;
    assert_bad(&format!(r#"{{"type": "block", "path": "disk.img"}}, {second}"#), message);
}

/// The link is another name of the same file.
#[test]
fn disk_twice_by_a_link_is_used_twice() {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    bench.link("link.img", "disk.img");
    let ran = bench.run_config(
        r#"{"boot": {"kernel": "kernel"}, "devices": [{"type": "block", "path": "disk.img"}, {"type": "block", "path": "link.img"}]}"#,
    );
    assert!(
        ran.stderr
            .starts_with("error: vm.json:1:118: devices[1].path: link.img is used twice in this machine: "),
        "{ran:?}"
    );
}

/// The overlay's temporary file is created and removed.
#[test]
fn check_of_an_overlay_leaves_nothing() {
    let bench = Bench::new();
    bench.file("disk.img", vec![0; 1 << 20]);
    let overlay = |directory| {
        let disk =
            format!(r#"{{"type": "block", "path": "disk.img", "overlay": {{"temp_in": "{directory}"}}}}"#);
        bench.file("vm.json", format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{disk}]}}"#));
        bench.run(&["--check", "--config", "vm.json"]).code
    };
    assert_eq!(overlay("."), Some(DONE));
    assert_eq!(bench.names(), ["disk.img", "kernel", "vm.json"]);
    assert_eq!(overlay("missing"), Some(BAD_CONFIG));
}

#[test]
fn disks_on_one_base_are_taken() {
    let disk = r#"{"type": "block", "path": "disk.img", "overlay": "temp"}"#;
    assert_eq!(run(&[disk; 3].join(", ")).code, Some(DONE));
}

#[test]
fn devices_beyond_the_slots_are_refused_with_the_limit() {
    let message =
        "vm.json:1:43: devices: 32 virtio devices, but the PCI bus has slots for only 31; remove some";
    assert_bad(&[r#"{"type": "rng"}"#; 32].join(", "), message);
}

#[test]
fn device_in_the_slot_of_another_is_refused() {
    let message =
        "vm.json:1:96: devices[1].slot: slot 3 is also that of devices[0], choose another for one of them";
    assert_bad(r#"{"type": "rng", "slot": 3}, {"type": "rng", "slot": 3}"#, message);
}

#[test]
fn slot_out_of_its_range_names_the_range() {
    let message = "vm.json:1:69: devices[0].slot: expected a whole number from 1 to 31, found the number 32";
    assert_bad(r#"{"type": "rng", "slot": 32}"#, message);
}

/// The message has the place of the parameter in the file.
#[test]
fn kernel_that_does_not_look_for_pci_is_refused_at_its_parameter() {
    let bench = Bench::new();
    let config = r#"{"boot": {"kernel": "kernel", "cmdline": "pci=off"}, "devices": [{"type": "rng"}]}"#;
    bench.file("vm.json", config);
    let ran = bench.run(&["--check", "--config", "vm.json"]);
    let message = r#"vm.json:1:50: boot.cmdline: with "pci=off" the kernel finds no PCI device, and the virtio devices are there; remove it, or set "transport": "mmio""#;
    assert_eq!(ran, complaint(BAD_CONFIG, message));
    let config = r#"{"transport": "mmio", "boot": {"kernel": "kernel", "cmdline": "pci=off"}, "devices": [{"type": "rng"}]}"#;
    bench.file("vm.json", config);
    assert_eq!(bench.run(&["--check", "--config", "vm.json"]).code, Some(DONE));
}

#[test]
fn device_with_an_unknown_field_is_refused() {
    let message = r#"vm.json:1:80: devices[0].path: unknown field, expected one of "type", "id", "slot""#;
    assert_bad(r#"{"type": "rng", "path": "/dev/random"}"#, message);
}

#[test]
fn metrics_to_a_directory_is_wrong_use() {
    let bench = Bench::new();
    bench.dir("dir");
    let ran = bench.run(&["--kernel", "kernel", "--metrics", "dir"]);
    let message = "--metrics dir: it is a directory; name a regular file, or a new one";
    assert_eq!(ran, complaint(USAGE, message));
}
