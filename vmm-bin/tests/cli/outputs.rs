//! Files that the program writes: never over what the machine is made of, and nothing is left of a start that was refused.

use std::os::unix::net::UnixListener;

use crate::bench::{BAD_CONFIG, Bench, DONE, HOST_CANT, Ran, USAGE, complaint, finish};

const OUTPUT: &str =
    "it is being written by another console, by --metrics or by another monitor; name another file";

/// A machine with this serial file, and these devices.
fn config(serial: &str, devices: &str) -> String {
    format!(r#"{{"boot": {{"kernel": "kernel"}}, "serial": {{"file": "{serial}"}}, "devices": [{devices}]}}"#)
}

/// A console that goes to this file.
fn console(id: &str, file: &str) -> String {
    format!(r#"{{"type": "console", "id": "{id}", "target": {{"file": "{file}"}}}}"#)
}

/// Runs with these flags, which leave everything as it is.
#[track_caller]
fn assert_refused(bench: &Bench, flags: &[&str], code: i32, message: &str) {
    let before = bench.contents();
    assert_eq!(bench.run(flags), complaint(code, message));
    assert!(bench.contents() == before, "{:?} are other files or were changed", bench.names());
}

/// As a start does, so does `--check`.
#[track_caller]
fn assert_refused_and_checked(bench: &Bench, flags: &[&str], code: i32, message: &str) {
    assert_refused(bench, flags, code, message);
    assert_refused(bench, &[flags, &["--check"]].concat(), code, message);
}

/// `--check` of a machine whose serial file and devices these are.
fn check(bench: &Bench, serial: &str, devices: &str) -> Ran {
    bench.run_config(&config(serial, devices))
}

/// With its standard output at a file of this name.
fn run_into(bench: &Bench, name: &str, flags: &[&str]) -> Ran {
    let script = format!(r#"exec "$0" "$@" 1<>{name}"#);
    finish(bench.launch(flags).wrapped(["sh", "-c", &script]))
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

/// The host has less memory for it than the guest is to have.
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
fn check_of_two_consoles_at_one_socket_is_refused() {
    let console =
        |id: &str| format!(r#"{{"type": "console", "id": "{id}", "target": {{"socket": "socket"}}}}"#);
    let devices = format!("{}, {}", console("a"), console("b"));
    let message = "vm.json:1:182: devices[1].target socket socket: it is the socket of another console; name another file";
    assert_eq!(check(&Bench::new(), "/dev/null", &devices), complaint(BAD_CONFIG, message));
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

#[test]
fn check_of_two_consoles_to_one_file_is_refused() {
    let bench = Bench::new();
    bench.file("out", "earlier");
    let message = format!("vm.json:1:112: devices[0].target file out: {OUTPUT}");
    assert_eq!(check(&bench, "out", &console("a", "out")), complaint(BAD_CONFIG, &message));
    assert_eq!(std::fs::read(bench.path("out")).unwrap(), b"earlier");
}

/// By two names of one that isn't there yet.
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
