//! Output files never overwrite the machine's input files, and a start that fails leaves no files behind.

use std::os::unix::net::UnixListener;

use driver::{DEADLINE, Stdin};
use vmm_hostio::range_lock::{self, DOES, LockKind, READ};

use crate::bench::{BAD_CONFIG, Bench, DONE, HOST_CANT, RunResult, USAGE, complaint, finish};

const OUTPUT: &str =
    "it is being written by another console, by --metrics or by another monitor; name another file";

/// A config with this serial file and these devices.
fn config(serial: &str, devices: &str) -> String {
    format!(r#"{{"boot": {{"kernel": "kernel"}}, "serial": {{"file": "{serial}"}}, "devices": [{devices}]}}"#)
}

/// A virtio console whose target is this file.
fn console(id: &str, file: &str) -> String {
    format!(r#"{{"type": "console", "id": "{id}", "target": {{"file": "{file}"}}}}"#)
}

/// Asserts that a run with these flags fails with this message and changes no file.
#[track_caller]
fn assert_refused(bench: &Bench, flags: &[&str], code: i32, message: &str) {
    let before = bench.contents();
    assert_eq!(bench.run(flags), complaint(code, message));
    assert!(bench.contents() == before, "{:?} are other files or were changed", bench.names());
}

/// As [`assert_refused`], for a start and for `--check`.
#[track_caller]
fn assert_refused_and_checked(bench: &Bench, flags: &[&str], code: i32, message: &str) {
    assert_refused(bench, flags, code, message);
    assert_refused(bench, &[flags, &["--check"]].concat(), code, message);
}

/// Runs `--check` for a machine with this serial file and these devices.
fn check(bench: &Bench, serial: &str, devices: &str) -> RunResult {
    bench.run_config(&config(serial, devices))
}

/// Runs with standard output redirected to this file, which isn't truncated.
fn run_into(bench: &Bench, name: &str, flags: &[&str]) -> RunResult {
    run_redirected(bench, &format!("1<>{name}"), flags)
}

/// Runs with these shell redirections, and without a controlling terminal.
fn run_redirected(bench: &Bench, redirections: &str, flags: &[&str]) -> RunResult {
    let script = format!(r#"exec "$0" "$@" {redirections}"#);
    finish(bench.launch(flags).wrapped(["setsid", "--wait", "sh", "-c", &script]))
}

/// Asserts that a run with standard error redirected to the file `name` exits with this code, prints nothing and changes no file.
#[track_caller]
fn assert_silent(bench: &Bench, name: &str, flags: &[&str], code: i32) {
    let before = bench.contents();
    let nothing = RunResult { code: Some(code), stdout: String::new(), stderr: String::new() };
    assert_eq!(run_redirected(bench, &format!("2<>{name}"), flags), nothing);
    assert!(bench.contents() == before, "{:?} are other files or were changed", bench.names());
}

/// A config with these disks.
fn disks(paths: &[&str]) -> String {
    let disk = |path: &&str| format!(r#"{{"type": "block", "path": "{path}", "format": "raw"}}"#);
    let devices: Vec<String> = paths.iter().map(disk).collect();
    format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{}]}}"#, devices.join(", "))
}

#[test]
fn refusal_of_standard_error_that_is_a_disk_is_not_written_into_it() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    bench.file("vm.json", disks(&["disk.img"]));
    assert_silent(&bench, "disk.img", &["--config", "vm.json"], USAGE);
    assert_silent(&bench, "disk.img", &["--config", "vm.json", "--check"], USAGE);
    // Standard output is refused first.
    let ran = run_redirected(&bench, "1<>disk.img 2>&1", &["--config", "vm.json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(USAGE), ""));
    assert!(std::fs::read(bench.path("disk.img")).unwrap() == vec![0; 1 << 20], "the disk has changed");
}

/// The check is made before the files are opened.
#[test]
fn failure_of_a_start_is_not_written_into_a_file_that_the_machine_is_made_of() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    bench.dir("vm");
    bench.file("vm/vm.json", disks(&["../disk.img", "none"]).replace("\"kernel\"}", "\"../kernel\"}"));
    bench.file("bad.json", "{");
    assert_silent(&bench, "disk.img", &["--config", "vm/vm.json"], BAD_CONFIG);
    assert_silent(&bench, "bad.json", &["--config", "bad.json"], BAD_CONFIG);
    assert_silent(&bench, "kernel", &["--kernel", "kernel", "--initrd", "none"], BAD_CONFIG);
    assert_silent(&bench, "kernel", &["kernel", "none"], BAD_CONFIG);
    assert_silent(&bench, "kernel", &["--flat", "kernel", "--memory", "1"], USAGE);
}

/// Files of other monitors are recognized by their locks, whatever the arguments are.
#[test]
fn usage_error_is_not_written_into_a_file_that_another_program_has_as_a_disk() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    let disk = std::fs::File::open(bench.path("disk.img")).unwrap();
    // As QEMU and this monitor lock a disk for reading.
    assert!(range_lock::lock(&disk, LockKind::Shared, DOES + READ..DOES + READ + 1).unwrap());
    assert_silent(&bench, "disk.img", &["--no-such-flag"], USAGE);
    drop(disk);
    let ran = run_redirected(&bench, "2<>disk.img", &["--no-such-flag"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(USAGE), ""));
    assert!(std::fs::read(bench.path("disk.img")).unwrap().starts_with(b"error: "));
}

/// The message goes to the terminal instead, if there is one.
#[test]
fn refusal_of_standard_error_is_said_on_the_terminal() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    bench.file("vm.json", disks(&["disk.img"]));
    let script = r#"exec setsid --ctty --wait "$0" "$@" 2<>disk.img"#;
    let launch = bench.launch(&["--config", "vm.json"]).on_terminal().wrapped(["sh", "-c", script]);
    let mut monitor = launch.start();
    monitor.expect("error: standard error: it is in use as a disk; name another file\r\n", DEADLINE);
    monitor.expect_code(USAGE, DEADLINE);
}

#[test]
fn standard_error_that_is_an_output_of_the_config_says_so_there() {
    let bench = Bench::new();
    bench.file("vm.json", config("out", ""));
    let ran = run_redirected(&bench, "2>out", &["--config", "vm.json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(BAD_CONFIG), ""));
    let message = "error: vm.json:1:42: serial file out: it is standard error too; name another file\n";
    assert_eq!(std::fs::read_to_string(bench.path("out")).unwrap(), message);
}

#[test]
fn standard_input_as_an_output_is_refused() {
    let bench = Bench::new();
    bench.file("in", "typed\n");
    let refused = |flags: &[&str], code, message: &str| {
        let launch = || bench.launch(&[&["--kernel", "kernel"], flags].concat());
        let input = || Stdin::File(bench.path("in"));
        assert_eq!(finish(launch().stdin(input())), complaint(code, message));
        assert_eq!(finish(launch().args(["--check"]).stdin(input())), complaint(code, message));
        assert_eq!(std::fs::read(bench.path("in")).unwrap(), b"typed\n");
    };
    let message = "it is standard input; name another file";
    refused(&["--metrics", "in"], USAGE, &format!("--metrics in: {message}"));
    refused(&["--log-file", "./in"], USAGE, &format!("--log-file ./in: {message}"));
    refused(&["--serial", "file:in"], BAD_CONFIG, &format!("--serial file in: {message}"));
    refused(&["--serial", "file:/dev/stdin"], BAD_CONFIG, &format!("--serial file /dev/stdin: {message}"));
}

#[test]
fn standard_output_into_standard_input_is_refused() {
    let bench = Bench::new();
    bench.file("in", "typed\n");
    let message = "standard output: it is standard input too; name another file";
    let flags = ["--kernel", "kernel", "--check"];
    assert_eq!(run_redirected(&bench, "<in >>in", &flags), complaint(USAGE, message));
    assert_eq!(std::fs::read(bench.path("in")).unwrap(), b"typed\n");
}

#[test]
fn log_into_standard_output_needs_that_to_append_too() {
    let bench = Bench::new();
    let run = |redirections: &str, log: &str| {
        run_redirected(&bench, redirections, &["--kernel", "kernel", "--check", "--log-file", log])
    };
    let message = |log: &str, stream: &str| {
        let remedy = "name another file, or redirect with >>";
        complaint(USAGE, &format!("--log-file {log}: it is {stream} too; {remedy}"))
    };
    assert_eq!(run(">out", "out"), message("out", "standard output"));
    assert_eq!(run(">out", "/dev/stdout"), message("/dev/stdout", "standard output"));
    assert_eq!(run(">>out", "out").code, Some(DONE));
    assert_eq!(run("2>>out", "out").code, Some(DONE));
}

#[test]
fn check_into_a_disk_is_refused() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    bench.file("vm.json", disks(&["disk.img"]));
    let message = "standard output: it is in use as a disk; name another file";
    let ran = run_into(&bench, "disk.img", &["--config", "vm.json", "--check"]);
    assert_eq!(ran, complaint(USAGE, message));
    assert!(std::fs::read(bench.path("disk.img")).unwrap() == vec![0; 1 << 20], "the disk has changed");
}

/// Wherever the start fails.
#[test]
fn start_that_lacks_descriptors_leaves_no_file() {
    let bench = Bench::new();
    bench.file("hlt.bin", b"\xf4");
    let before = bench.names();
    let limited = |limit: u32| {
        let script = format!(r#"ulimit -n {limit}; exec "$0" "$@""#);
        let flags =
            ["--flat", "hlt.bin", "--log-file", "log", "--metrics", "metrics", "--serial", "file:new"];
        let ran = finish(bench.launch(&flags).wrapped(["sh", "-c", &script]));
        (ran.code, bench.names() == before, ran.stderr)
    };
    // From the least with which the program starts up to the least with which the guest runs.
    let runs: Vec<_> = (5..50).map(limited).take_while(|(code, ..)| *code != Some(DONE)).collect();
    assert!(runs.iter().all(|(code, ..)| *code == Some(HOST_CANT)), "{runs:?}");
    assert!(runs.iter().all(|(_, has_left_nothing, _)| *has_left_nothing), "{runs:?}: {:?}", bench.names());
    assert!(
        runs.iter().any(|(.., stderr)| stderr.contains("--log-file log: Too many open files")),
        "{runs:?}"
    );
    assert!(runs.len() < 45, "{runs:?}");
}

#[test]
fn standard_output_into_the_image_is_refused() {
    let bench = Bench::new();
    bench.file("hlt.bin", b"\xf4");
    let message = "standard output: it is in use as a flat image; name another file";
    assert_eq!(run_into(&bench, "hlt.bin", &["--flat", "hlt.bin"]), complaint(USAGE, message));
    assert_eq!(std::fs::read(bench.path("hlt.bin")).unwrap(), b"\xf4");
}

#[test]
fn standard_output_as_the_metrics_too_is_refused() {
    let bench = Bench::new();
    bench.file("hlt.bin", b"\xf4");
    let message = "--metrics out: it is standard output too; name another file";
    let flags = ["--flat", "hlt.bin", "--metrics", "out"];
    assert_eq!(run_into(&bench, "out", &flags), complaint(USAGE, message));
    assert_eq!(
        run_into(&bench, "out", &[flags.as_slice(), &["--check"]].concat()),
        complaint(USAGE, message)
    );
}

#[test]
fn config_as_the_log_is_refused() {
    let bench = Bench::new();
    bench.file("vm.json", r#"{"boot": {"kernel": "kernel"}}"#);
    let flags = ["-v", "--config", "vm.json", "--log-file", "vm.json"];
    let message = "--log-file vm.json: it is in use as the config of a machine; name another file";
    assert_refused_and_checked(&bench, &flags, USAGE, message);
}

#[test]
fn config_as_the_metrics_is_refused_by_any_name() {
    let bench = Bench::new();
    bench.file("vm.json", r#"{"boot": {"kernel": "kernel"}}"#);
    bench.link("link", "vm.json");
    let flags = ["--config", "vm.json", "--metrics", "link"];
    let message = "--metrics link: it is in use as the config of a machine; name another file";
    assert_refused_and_checked(&bench, &flags, USAGE, message);
}

#[test]
fn kernel_as_the_log_is_refused() {
    let message = "--log-file ./kernel: it is in use as a kernel; name another file";
    let flags = ["-v", "--kernel", "kernel", "--log-file", "./kernel"];
    assert_refused_and_checked(&Bench::new(), &flags, USAGE, message);
}

#[test]
fn initrd_as_the_metrics_is_refused() {
    let bench = Bench::new();
    bench.file("initrd", "070701");
    let flags = ["--kernel", "kernel", "--initrd", "initrd", "--metrics", "initrd"];
    let message = "--metrics initrd: it is in use as an initrd; name another file";
    assert_refused_and_checked(&bench, &flags, USAGE, message);
}

#[test]
fn flat_image_as_the_metrics_is_refused() {
    let bench = Bench::new();
    bench.file("hlt.bin", b"\xf4");
    let message = "--metrics hlt.bin: it is in use as a flat image; name another file";
    assert_refused_and_checked(&bench, &["--flat", "hlt.bin", "--metrics", "hlt.bin"], USAGE, message);
}

#[test]
fn log_as_the_metrics_is_refused_and_not_made() {
    let flags = ["-v", "--kernel", "kernel", "--metrics", "out", "--log-file", "out"];
    let message = format!("--log-file out: {OUTPUT}");
    assert_refused_and_checked(&Bench::new(), &flags, USAGE, &message);
}

#[test]
fn start_that_is_refused_makes_no_file() {
    let bench = Bench::new();
    bench.dir("dir");
    let flags = ["--kernel", "kernel", "--log-file", "log", "--metrics", "dir"];
    let message = "--metrics dir: it is a directory; name a regular file, or a new one";
    assert_refused_and_checked(&bench, &flags, USAGE, message);
    let flags = ["--kernel", "none", "--log-file", "log"];
    let message = "kernel image none: can't be opened: No such file or directory (os error 2)";
    assert_refused_and_checked(&bench, &flags, BAD_CONFIG, message);
}

/// The process may map less memory than the guest is configured to have.
#[test]
fn start_that_the_host_refuses_leaves_no_file() {
    let bench = Bench::new();
    bench.file("hlt.bin", b"\xf4");
    bench.file("old", "earlier");
    let before = bench.contents();
    let flags = ["--flat", "hlt.bin", "--memory", "1G", "--log-file", "log", "--metrics", "metrics"];
    let limited = |serial: &str| {
        let launch = bench.launch(&[&flags[..], &["--serial", serial]].concat());
        finish(launch.wrapped(["sh", "-c", r#"ulimit -v 500000; exec "$0" "$@""#])).code
    };
    assert_eq!(limited("file:new"), Some(HOST_CANT));
    assert_eq!(limited("file:old"), Some(HOST_CANT));
    assert!(bench.contents() == before, "{:?} are other files or were changed", bench.names());
}

#[test]
fn check_of_a_socket_in_use_is_refused() {
    let bench = Bench::new();
    let _listener = UnixListener::bind(bench.path("socket")).unwrap();
    let message =
        "--serial socket socket: is in use by another program: stop that one, or choose another path";
    let flags = ["--kernel", "kernel", "--serial", "socket:socket", "--check"];
    assert_eq!(bench.run(&flags), complaint(BAD_CONFIG, message));
}

#[test]
fn two_listeners_at_one_socket_are_named_with_both_places() {
    let bench = Bench::new();
    bench.dir("dir");
    let socket =
        bench.path("socket").canonicalize().unwrap_or(bench.path("").canonicalize().unwrap().join("socket"));
    let refused = |serial: &str, devices: &str, at: &str, fields: [&str; 2]| {
        let serial = format!(r#""serial": {serial}, "boot": {{"kernel": "kernel"}}"#);
        bench.file("vm.json", format!(r#"{{{serial}, "devices": [{devices}]}}"#));
        let [second, first] = fields;
        let message = format!(
            "vm.json:1:{at}: {second}: socket {} is already used by {first}; change one of them",
            socket.display()
        );
        assert_refused_and_checked(&bench, &["--config", "vm.json"], BAD_CONFIG, &message);
    };
    let console = |id: &str, path: &str| {
        format!(r#"{{"type": "console", "id": "{id}", "target": {{"socket": "{path}"}}}}"#)
    };
    let vsock = |path: &str| format!(r#"{{"type": "vsock", "path": "{path}"}}"#);
    let serial = r#"{"socket": "socket"}"#;
    refused(serial, &vsock("dir/../socket"), "116", ["devices[0].path", "serial"]);
    refused(serial, &console("a", "socket"), "117", ["devices[0].target", "serial"]);
    let two = |one: String, other: String| format!("{one}, {other}");
    refused(
        r#""none""#,
        &two(console("a", "socket"), console("b", "./socket")),
        "167",
        ["devices[1].target", "devices[0].target"],
    );
    refused(
        r#""none""#,
        &two(vsock("socket"), console("b", "socket")),
        "140",
        ["devices[1].target", "devices[0].path"],
    );
}

#[test]
fn metrics_to_a_socket_are_refused_as_that() {
    let bench = Bench::new();
    let _listener = UnixListener::bind(bench.path("socket")).unwrap();
    let message = "--metrics socket: it is a socket; name a regular file, or a new one";
    let flags = ["--kernel", "kernel", "--metrics", "socket"];
    assert_eq!(bench.run(&flags), complaint(USAGE, message));
    assert_eq!(bench.run(&[&flags[..], &["--check"]].concat()), complaint(USAGE, message));
}

#[test]
fn log_to_a_socket_is_refused_as_that() {
    let bench = Bench::new();
    let _listener = UnixListener::bind(bench.path("socket")).unwrap();
    let message = "--log-file socket: it is a socket; name a file or a pipe";
    let flags = ["--kernel", "kernel", "--log-file", "socket"];
    assert_eq!(bench.run(&flags), complaint(USAGE, message));
    assert_eq!(bench.run(&[&flags[..], &["--check"]].concat()), complaint(USAGE, message));
}

#[test]
fn check_of_a_serial_file_that_is_the_kernel_is_refused() {
    let message = "vm.json:1:42: serial file kernel: it is in use as a kernel; name another file";
    assert_eq!(check(&Bench::new(), "kernel", ""), complaint(BAD_CONFIG, message));
}

#[test]
fn check_of_a_serial_file_that_is_the_config_is_refused() {
    let message =
        "vm.json:1:42: serial file vm.json: it is in use as the config of a machine; name another file";
    assert_eq!(check(&Bench::new(), "vm.json", ""), complaint(BAD_CONFIG, message));
}

#[test]
fn check_of_a_console_that_is_a_disk_is_refused() {
    let bench = Bench::new();
    bench.sparse("disk.img", 1 << 20);
    let disk = r#"{"type": "block", "path": "disk.img", "read_only": true}"#;
    let message = "vm.json:1:176: devices[1].target file disk.img: it is in use as a disk; name another file";
    let devices = format!("{disk}, {}", console("a", "disk.img"));
    assert_eq!(check(&bench, "/dev/null", &devices), complaint(BAD_CONFIG, message));
}

/// A guest would change what the next start reads. By any name, and whatever the device.
#[test]
fn input_as_a_disk_that_is_written_is_refused() {
    let bench = Bench::new();
    bench.file("initrd", vec![1; 4096]);
    std::fs::hard_link(bench.path("kernel"), bench.path("hard")).unwrap();
    bench.link("link", "vm.json");
    let refused = |boot: &str, kind: &str, path: &str, role: &str| {
        let device = format!(r#"{{"type": "{kind}", "path": "{path}"}}"#);
        let config = format!(r#"{{"boot": {boot}, "devices": [{device}]}}"#);
        bench.file("vm.json", &config);
        let at = config.rfind(path).unwrap() + path.len() + 1;
        let instead = if kind == "block" { ", or use an \"overlay\"" } else { "" };
        let message = format!(
            "vm.json:1:{at}: devices[0].path: {path} is in use as {role}, which a guest must not change: name another file, or \
             set \"read_only\"{instead}"
        );
        assert_refused_and_checked(&bench, &["--config", "vm.json"], BAD_CONFIG, &message);
    };
    let linux = r#"{"kernel": "kernel", "initrd": "initrd"}"#;
    let flat = r#"{"flat": {"image": "kernel"}}"#;
    for kind in ["block", "pmem"] {
        refused(linux, kind, "link", "the config of a machine");
        refused(linux, kind, "vm.json", "the config of a machine");
        refused(linux, kind, "hard", "a kernel");
        refused(linux, kind, "./initrd", "an initrd");
        refused(flat, kind, "hard", "a flat image");
    }
}

#[test]
fn input_as_a_disk_that_is_read_is_a_plan() {
    let bench = Bench::new();
    bench.file("kernel", [crate::bench::kernel(), vec![0; 1024]].concat());
    let len = std::fs::metadata(bench.path("kernel")).unwrap().len().next_multiple_of(512);
    std::fs::File::options().write(true).open(bench.path("kernel")).unwrap().set_len(len).unwrap();
    let disks = r#"{"type": "block", "id": "a", "path": "kernel", "read_only": true},
                   {"type": "block", "id": "b", "path": "kernel", "overlay": "temp"}"#;
    let ran = check(&bench, "/dev/null", disks);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
}

#[test]
fn check_of_two_consoles_to_one_file_is_refused() {
    let bench = Bench::new();
    bench.file("out", "earlier");
    let message = format!("vm.json:1:112: devices[0].target file out: {OUTPUT}");
    assert_eq!(check(&bench, "out", &console("a", "out")), complaint(BAD_CONFIG, &message));
    assert_eq!(std::fs::read(bench.path("out")).unwrap(), b"earlier");
}

/// By two names of a file that doesn't exist yet.
#[test]
fn check_of_two_consoles_to_one_new_file_is_refused_and_makes_none() {
    let bench = Bench::new();
    let message = format!("vm.json:1:112: devices[0].target file ./out: {OUTPUT}");
    assert_eq!(check(&bench, "out", &console("a", "./out")), complaint(BAD_CONFIG, &message));
    assert!(!bench.path("out").exists());
}

#[test]
fn check_of_a_serial_file_that_cannot_be_is_refused() {
    let message = "vm.json:1:42: serial file none/out: the directory none doesn't exist: create it, or name another file";
    assert_eq!(check(&Bench::new(), "none/out", ""), complaint(BAD_CONFIG, message));
}

#[test]
fn check_of_consoles_that_share_a_device_or_a_pipe_is_a_plan() {
    let bench = Bench::new();
    bench.fifo("fifo");
    let devices = [console("a", "/dev/null"), console("b", "fifo"), console("c", "./fifo")].join(", ");
    let ran = check(&bench, "/dev/null", &devices);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
}

#[test]
fn check_of_outputs_of_their_own_is_a_plan_and_makes_none() {
    let bench = Bench::new();
    bench.file("vm.json", config("serial", &console("a", "console")));
    let before = bench.names();
    let ran = bench.run(&["--check", "--config", "vm.json", "--metrics", "metrics", "--log-file", "log"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    assert_eq!(bench.names(), before);
}
