//! Output files of the monitor: none is an input of this or another monitor, each has one writer, and each keeps its contents until the
//! guest starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use driver::{DEADLINE, Launch, Monitor, Stdin, Stdout, guests, wait_until};
use harness::trials;
use libtest_mimic::{Completion, Trial};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::common::{BAD_CONFIG, BY_SIGTERM, ENDED, TIME_IS_UP, USAGE};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        output_file_that_is_the_kernel_is_refused_and_kept,
        output_file_that_is_an_image_by_another_name_is_refused_and_kept,
        output_file_that_is_the_config_is_refused_and_kept,
        output_file_that_is_the_log_is_refused,
        output_file_of_two_consoles_is_refused_and_kept,
        output_file_of_another_monitor_is_refused_and_goes_on,
        output_file_of_another_monitor_is_no_log_and_no_kernel,
        output_file_that_is_the_kernel_of_another_monitor_is_refused_and_kept,
        output_file_of_a_refused_start_is_not_made,
        output_file_of_a_late_refusal_is_kept,
        output_file_of_a_guest_that_prints_nothing_is_emptied,
        output_file_that_is_a_device_is_shared,
        output_file_that_is_another_monitors_standard_output_is_refused,
        output_file_that_is_another_monitors_standard_input_is_refused,
        log_of_two_monitors_is_shared,
        kernel_that_is_a_disk_to_read_is_both,
    ]
    .into_iter()
    .chain([Trial::ignorable_test("output_that_is_the_file_below_a_loop_device_is_refused_and_kept", || {
        match LoopDevice::new() {
            Ok(device) => {
                output_that_is_the_file_below_a_loop_device_is_refused_and_kept(&device);
                Ok(Completion::Completed)
            }
            Err(why) => Ok(Completion::ignored_with(why)),
        }
    })])
    .collect()
}

const OUTPUT: &str =
    "it is being written by another console, by --metrics or by another monitor; name another file";

/// A directory with the guest `halt`, which prints "ready", and the serial file of an earlier run.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        fs::copy(guests::path("halt"), bench.path("kernel")).unwrap();
        fs::write(bench.path("serial"), "earlier\n").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn serial(&self) -> String {
        fs::read_to_string(self.path("serial")).unwrap()
    }

    /// A machine with these members of the config besides its kernel.
    fn launch(&self, members: &str) -> Launch {
        let config = format!(r#"{{"boot": {{"kernel": "kernel"}}, "memory": {{"size": "32M"}}, {members}}}"#);
        fs::write(self.path("vm.json"), config).unwrap();
        Monitor::command(["--config", "vm.json"]).dir(self.0.path())
    }

    /// Starts a machine whose serial file is `serial`, and waits until its guest has printed.
    fn start(&self) -> Monitor {
        let monitor = self.launch(r#""serial": {"file": "serial"}"#).start();
        wait_until("the guest is ready", DEADLINE, || self.serial() == "ready\n");
        monitor
    }
}

/// A member of the config that adds a console.
fn console(target: &str) -> String {
    format!(r#""devices": [{{"type": "console", "target": {{"file": "{target}"}}}}]"#)
}

#[track_caller]
fn assert_refused(launch: Launch, code: i32, message: &str) {
    let mut monitor = launch.start();
    monitor.expect_code(code, DEADLINE);
    assert_eq!(monitor.stderr(), format!("error: {message}\n"));
}

fn output_file_that_is_the_kernel_is_refused_and_kept() {
    let bench = Bench::new();
    let message = "vm.json:1:69: serial file kernel: it is in use as a kernel; name another file";
    assert_refused(bench.launch(r#""serial": {"file": "kernel"}"#), BAD_CONFIG, message);
    assert!(same(&bench.path("kernel"), &guests::path("halt")));
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

fn output_file_that_is_an_image_by_another_name_is_refused_and_kept() {
    let bench = Bench::new();
    fs::write(bench.path("hlt.bin"), b"\xf4").unwrap();
    fs::hard_link(bench.path("hlt.bin"), bench.path("link")).unwrap();
    let launch = Monitor::command(["--flat", "hlt.bin", "--serial", "file:link"]).dir(bench.0.path());
    let message = "--serial file link: it is in use as a flat image; name another file";
    assert_refused(launch, BAD_CONFIG, message);
    assert_eq!(fs::read(bench.path("hlt.bin")).unwrap(), b"\xf4");
}

fn output_file_that_is_the_config_is_refused_and_kept() {
    let bench = Bench::new();
    let launch = bench.launch(&console("vm.json"));
    let before = fs::read(bench.path("vm.json")).unwrap();
    let message = "vm.json:1:101: devices[0].target file vm.json: it is in use as the config of a machine; name another file";
    assert_refused(launch, BAD_CONFIG, message);
    assert_eq!(fs::read(bench.path("vm.json")).unwrap(), before);
}

fn output_file_that_is_the_log_is_refused() {
    let bench = Bench::new();
    let launch = bench.launch(r#""serial": {"file": "serial"}"#).args(["--log-file", "serial"]);
    assert_refused(
        launch,
        BAD_CONFIG,
        "vm.json:1:69: serial file serial: it is in use as a log or as standard output; name another file",
    );
    assert_eq!(bench.serial(), "earlier\n");
}

fn output_file_of_two_consoles_is_refused_and_kept() {
    let bench = Bench::new();
    let launch = bench.launch(&format!(r#""serial": {{"file": "serial"}}, {}"#, console("./serial")));
    assert_refused(launch, BAD_CONFIG, &format!("vm.json:1:131: devices[0].target file ./serial: {OUTPUT}"));
    assert_eq!(bench.serial(), "earlier\n");
}

fn output_file_of_another_monitor_is_refused_and_goes_on() {
    let bench = Bench::new();
    let mut first = bench.start();
    let launch = bench.launch(r#""serial": {"file": "serial"}"#);
    assert_refused(launch, BAD_CONFIG, &format!("vm.json:1:69: serial file serial: {OUTPUT}"));
    let launch = bench.launch(r#""serial": "none""#).args(["--metrics", "serial"]);
    assert_refused(launch, USAGE, &format!("--metrics serial: {OUTPUT}"));
    assert_eq!(bench.serial(), "ready\n");
    first.signal(Signal::SIGTERM);
    first.expect_code(BY_SIGTERM, DEADLINE);
    // Nobody uses it any more.
    drop(bench.start());
}

fn output_file_of_another_monitor_is_no_log_and_no_kernel() {
    let bench = Bench::new();
    let _first = bench.start();
    let launch = bench.launch(r#""serial": "none""#).args(["-v", "--log-file", "serial"]);
    assert_refused(launch, USAGE, &format!("--log-file serial: {OUTPUT}"));
    let launch = Monitor::command(["--kernel", "serial"]).dir(bench.0.path());
    let message = format!("kernel image serial: can't be opened: {OUTPUT}");
    assert_refused(launch, BAD_CONFIG, &message);
    assert_eq!(bench.serial(), "ready\n");
}

/// The other monitor has read the kernel, but reads it again when its guest resets the machine.
fn output_file_that_is_the_kernel_of_another_monitor_is_refused_and_kept() {
    let bench = Bench::new();
    let _first = bench.start();
    fs::write(bench.path("hlt.bin"), b"\xf4").unwrap();
    let launch = Monitor::command(["--flat", "hlt.bin", "--serial", "file:kernel"]).dir(bench.0.path());
    let message = "--serial file kernel: it is in use as a kernel; name another file";
    assert_refused(launch, BAD_CONFIG, message);
    assert!(same(&bench.path("kernel"), &guests::path("halt")));
}

fn output_file_of_a_refused_start_is_not_made() {
    let bench = Bench::new();
    let launch = bench.launch(&format!(r#""serial": {{"file": "new"}}, {}"#, console("none/out")));
    let launch = launch.args(["-v", "--metrics", "metrics", "--log-file", "log"]);
    let message = "vm.json:1:128: devices[0].target file none/out: the directory none doesn't exist: create it, or name another file";
    assert_refused(launch, BAD_CONFIG, message);
    assert_eq!(["new", "metrics", "log"].map(|name| bench.path(name).exists()), [false; 3]);
}

/// The serial file is already open when it turns out that the pipe has no reader.
fn output_file_of_a_late_refusal_is_kept() {
    let bench = Bench::new();
    mkfifo(&bench.path("fifo"), Mode::S_IRWXU).unwrap();
    let message = "vm.json:1:131: devices[0].target file fifo: it is a pipe without a reader; open it for reading first, as cat(1) does";
    let launch = bench.launch(&format!(r#""serial": {{"file": "serial"}}, {}"#, console("fifo")));
    assert_refused(launch, BAD_CONFIG, message);
    assert_eq!(bench.serial(), "earlier\n");
}

fn output_file_of_a_guest_that_prints_nothing_is_emptied() {
    let bench = Bench::new();
    fs::write(bench.path("hlt.bin"), b"\xf4").unwrap();
    let flags = ["--flat", "hlt.bin", "--memory", "1M", "--serial", "file:serial"];
    Monitor::command(flags).dir(bench.0.path()).start().expect_code(ENDED, DEADLINE);
    assert_eq!(bench.serial(), "");
}

fn output_file_that_is_a_device_is_shared() {
    let bench = Bench::new();
    let members = format!(r#""serial": {{"file": "/dev/null"}}, {}"#, console("/dev/null"));
    let mut monitor =
        bench.launch(&members).args(["--log-file", "/dev/null", "-v", "--timeout", "1s"]).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
}

fn log_of_two_monitors_is_shared() {
    let bench = Bench::new();
    let start = || {
        let mut monitor = bench.launch(r#""serial": "stdio""#).args(["-v", "--log-file", "log"]).start();
        monitor.expect("ready\n", DEADLINE);
        monitor
    };
    let _monitors = [start(), start()];
    // It is written by another thread.
    let log = || fs::read_to_string(bench.path("log")).unwrap();
    wait_until("both have written", DEADLINE, || log().matches("INFO first KVM_RUN").count() == 2);
    let log = log();
    // Nor can it be the console of a third monitor.
    let message =
        "vm.json:1:69: serial file log: it is in use as a log or as standard output; name another file";
    assert_refused(bench.launch(r#""serial": {"file": "log"}"#), BAD_CONFIG, message);
    assert_eq!(fs::read_to_string(bench.path("log")).unwrap(), log);
}

fn output_file_that_is_another_monitors_standard_output_is_refused() {
    let bench = Bench::new();
    let printed = || fs::read_to_string(bench.path("out")).unwrap_or_default();
    let first = bench.launch(r#""serial": "stdio""#).stdout(Stdout::File(bench.path("out")));
    let _first = first.start();
    wait_until("the first one prints", DEADLINE, || printed().contains("ready\n"));
    let message =
        "vm.json:1:69: serial file out: it is in use as a log or as standard output; name another file";
    assert_refused(bench.launch(r#""serial": {"file": "out"}"#), BAD_CONFIG, message);
    assert!(printed().contains("ready\n"));
}

fn output_file_that_is_another_monitors_standard_input_is_refused() {
    let bench = Bench::new();
    fs::write(bench.path("in"), "typed\n").unwrap();
    let mut first = bench.launch(r#""serial": "stdio""#).stdin(Stdin::File(bench.path("in"))).start();
    first.expect("ready\n", DEADLINE);
    let message = "it is in use as the standard input of a machine; name another file";
    let launch = bench.launch(r#""serial": {"file": "in"}"#);
    assert_refused(launch, BAD_CONFIG, &format!("vm.json:1:69: serial file in: {message}"));
    let launch = bench.launch(r#""serial": "none""#).args(["--log-file", "in"]);
    assert_refused(launch, USAGE, &format!("--log-file in: {message}"));
    assert_eq!(fs::read(bench.path("in")).unwrap(), b"typed\n");
}

/// The file is also another monitor's kernel at the same time.
fn kernel_that_is_a_disk_to_read_is_both() {
    let bench = Bench::new();
    // A disk must consist of whole sectors.
    let kernel = fs::File::options().write(true).open(bench.path("kernel")).unwrap();
    kernel.set_len(kernel.metadata().unwrap().len().next_multiple_of(512)).unwrap();
    let disk = r#""devices": [{"type": "block", "path": "kernel", "read_only": true}]"#;
    let start = || {
        let mut monitor = bench.launch(disk).start();
        monitor.expect("ready\n", DEADLINE);
        monitor
    };
    let _monitors = [start(), start()];
}

/// A loop device of 1 MiB for the file `disk.img` of a bench.
struct LoopDevice {
    bench: Bench,
    path: String,
}

impl LoopDevice {
    /// Creates one; not every host has loop devices, and few allow unprivileged users to create them.
    fn new() -> Result<Self, String> {
        let bench = Bench::new();
        fs::write(bench.path("disk.img"), vec![0x5a; 1 << 20]).unwrap();
        let attached =
            Command::new("losetup").args(["--show", "--find"]).arg(bench.path("disk.img")).output();
        let attached = attached.map_err(|error| format!("losetup: {error}"))?;
        match attached.status.success() {
            true => Ok(Self { bench, path: String::from_utf8(attached.stdout).unwrap().trim().to_owned() }),
            false => Err(format!("losetup: {}", String::from_utf8_lossy(&attached.stderr).trim())),
        }
    }

    /// A machine whose disk is the device, and with this serial console.
    fn launch(&self, serial: &str) -> Launch {
        let disk =
            format!(r#"{{"type": "block", "path": "{}", "format": "raw", "read_only": true}}"#, self.path);
        self.bench.launch(&format!(r#""serial": {serial}, "devices": [{disk}]"#))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.path]).status();
    }
}

fn output_that_is_the_file_below_a_loop_device_is_refused_and_kept(device: &LoopDevice) {
    let is_kept = || fs::read(device.bench.path("disk.img")).unwrap() == vec![0x5a; 1 << 20];
    let (none, node) = (r#""none""#, &device.path);
    let message =
        format!("it is the backing file of {node}; name another file, or detach it, losetup -d {node}");
    let assert_kept = |launch: &dyn Fn() -> Launch, code, place: &str| {
        assert_refused(launch(), code, &format!("{place}: {message}"));
        assert_refused(launch().args(["--check"]), code, &format!("{place}: {message}"));
        assert!(is_kept(), "{place} has changed the disk");
    };
    let metrics = || device.launch(none).args(["--metrics", "disk.img"]);
    assert_kept(&metrics, USAGE, "--metrics disk.img");
    let log = || device.launch(none).args(["-v", "--log-file", "./disk.img"]);
    assert_kept(&log, USAGE, "--log-file ./disk.img");
    let serial = || device.launch(r#"{"file": "disk.img"}"#);
    assert_kept(&serial, BAD_CONFIG, "vm.json:1:69: serial file disk.img");
    let redirected = |to: &str| {
        let script = format!(r#"exec "$0" "$@" {to}"#);
        device.launch(none).wrapped(["setsid", "--wait", "sh", "-c", &script])
    };
    let stdout = || redirected("1<>disk.img");
    assert_kept(&stdout, USAGE, "standard output");
    // The error can't be reported there.
    let mut monitor = redirected("2<>disk.img").start();
    monitor.expect_code(USAGE, DEADLINE);
    assert_eq!((monitor.stderr().as_str(), is_kept()), ("", true));
    let mut monitor = redirected(&format!("1<>{node} 2<>{node}")).start();
    monitor.expect_code(USAGE, DEADLINE);
    assert_eq!((monitor.stderr().as_str(), is_kept()), ("", true));
}
