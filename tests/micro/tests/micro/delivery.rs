//! What a guest has sent to a host's program that reads late, when the machine ends.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use driver::{DEADLINE, Launch, Monitor, Stdin, guests};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{
    BAD_CONFIG, BY_SIGHUP, BY_SIGTERM, ENDED, HOST_CANT, TIME_IS_UP, forbid_threads, limit_descriptors,
    unprivileged,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        delivery_of_a_vsock_follows_the_guests_reset,
        delivery_of_a_vsock_follows_a_signal,
        delivery_of_a_vsock_follows_a_key,
        delivery_of_a_vsock_follows_a_timeout,
        delivery_of_a_vsock_follows_a_restart,
        delivery_of_a_vsock_follows_a_signal_during_a_restart,
        delivery_of_a_vsock_follows_a_restart_without_an_image,
        delivery_of_a_vsock_follows_a_restart_without_any_descriptor,
        delivery_of_a_vsock_follows_a_restart_without_a_descriptor_for_its_thread,
        delivery_of_a_vsock_follows_a_restart_without_a_descriptor_for_a_vcpu,
        delivery_of_a_vsock_is_left_at_a_signal_after_a_failed_restart,
        delivery_of_a_vsock_is_left_at_a_second_signal,
        delivery_of_a_vsock_is_not_left_at_a_second_hang_up,
        delivery_of_a_vsock_is_left_at_a_second_signal_also_without_threads,
    ]
}

/// Number of bytes that the guest sends.
const LEN: usize = 4 * 64_758;
/// The monitor waits for the program.
const NOTICE: &str = "bytes of virtio vsock \"v\" to the host's programs; another signal";

/// A directory with the host's socket for the guest's connections.
struct Host {
    directory: TempDir,
    listener: UnixListener,
}

impl Host {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("v.sock_1024")).expect("a socket");
        Self { directory, listener }
    }

    fn launch(&self, on_reboot: &str) -> Launch {
        let (image, config) = (self.image(), self.directory.path().join("config.json"));
        std::fs::copy(guests::path("vsock-send"), &image).expect("room for an image");
        let text = format!(
            r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "memory": {{"size": "16M"}},
                "on_reboot": "{on_reboot}", "devices": [{{"type": "debug-console"}},
                {{"type": "vsock", "id": "v", "path": "v.sock"}}]}}"#
        );
        std::fs::write(&config, text).expect("room for a config");
        Monitor::command(["--config".as_ref(), config.as_os_str()]).stdin(Stdin::Pipe)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// The guest's connection, when it has sent everything.
    fn accept(&self, monitor: &mut Monitor) -> UnixStream {
        monitor.expect("sent\n", DEADLINE);
        let (stream, _) = self.listener.accept().expect("the guest has connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout that isn't 0");
        stream
    }
}

fn read_to_end(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end of the stream");
    bytes
}

#[track_caller]
fn assert_delivers(monitor: &mut Monitor, stream: UnixStream, code: i32) {
    // Without this, the host's kernel might have buffered everything.
    monitor.expect_stderr(NOTICE, DEADLINE);
    let bytes = read_to_end(stream);
    assert_eq!(bytes.len(), LEN);
    assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
    monitor.expect_code(code, DEADLINE);
    assert!(!monitor.stderr().contains("lost"), "{}", monitor.stderr());
}

fn delivery_of_a_vsock_follows_the_guests_reset() {
    let host = Host::new();
    let mut monitor = host.launch("exit").start();
    let stream = host.accept(&mut monitor);
    monitor.send(b"r");
    assert_delivers(&mut monitor, stream, ENDED);
}

fn delivery_of_a_vsock_follows_a_signal() {
    let host = Host::new();
    let mut monitor = host.launch("exit").start();
    let stream = host.accept(&mut monitor);
    monitor.signal(Signal::SIGTERM);
    assert_delivers(&mut monitor, stream, BY_SIGTERM);
}

fn delivery_of_a_vsock_follows_a_key() {
    let host = Host::new();
    let mut monitor = host.launch("exit").on_terminal().start();
    let stream = host.accept(&mut monitor);
    monitor.send(b"\x01x");
    assert_delivers(&mut monitor, stream, ENDED);
}

fn delivery_of_a_vsock_follows_a_timeout() {
    let host = Host::new();
    let mut monitor = host.launch("exit").args(["--timeout", "10s"]).start();
    let stream = host.accept(&mut monitor);
    assert_delivers(&mut monitor, stream, TIME_IS_UP);
}

/// It doesn't delay the restart, and goes on while the next guest runs.
fn delivery_of_a_vsock_follows_a_restart() {
    let host = Host::new();
    let mut monitor = host.launch("restart").start();
    let first = host.accept(&mut monitor);
    monitor.send(b"r");
    let second = host.accept(&mut monitor);
    assert_eq!(read_to_end(first).len(), LEN);
    monitor.signal(Signal::SIGTERM);
    assert_delivers(&mut monitor, second, BY_SIGTERM);
}

/// The signal arrives while the next machine is being built, or a moment later, which makes no difference.
fn delivery_of_a_vsock_follows_a_signal_during_a_restart() {
    let host = Host::new();
    let mut monitor = host.launch("restart").args(["-v"]).start();
    let stream = host.accept(&mut monitor);
    // The next guest finds nobody.
    drop(host.listener);
    monitor.send(b"r");
    monitor.expect_stderr("the guest reset itself", DEADLINE);
    monitor.signal(Signal::SIGTERM);
    assert_delivers(&mut monitor, stream, BY_SIGTERM);
}

fn delivery_of_a_vsock_follows_a_restart_without_an_image() {
    let host = Host::new();
    let mut monitor = host.launch("restart").start();
    let stream = host.accept(&mut monitor);
    File::create(host.image()).expect("an empty image");
    monitor.send(b"r");
    assert_delivers(&mut monitor, stream, BAD_CONFIG);
}

/// The restart fails where the monitor may have `more` descriptors than while its guest ran.
#[track_caller]
fn assert_delivers_without_descriptors(more: i64, error: &str) {
    let host = Host::new();
    let mut monitor = host.launch("restart").start();
    let stream = host.accept(&mut monitor);
    limit_descriptors(&monitor, more);
    monitor.send(b"r");
    assert_delivers(&mut monitor, stream, HOST_CANT);
    assert!(monitor.stderr().contains(error), "{}", monitor.stderr());
}

fn delivery_of_a_vsock_follows_a_restart_without_any_descriptor() {
    assert_delivers_without_descriptors(-20, "KVM_CREATE_VM: Too many open files");
}

fn delivery_of_a_vsock_follows_a_restart_without_a_descriptor_for_its_thread() {
    assert_delivers_without_descriptors(-5, "thread of a device: Too many open files");
}

/// The device's thread has started. The consoles of the machine before keep two descriptors.
fn delivery_of_a_vsock_follows_a_restart_without_a_descriptor_for_a_vcpu() {
    assert_delivers_without_descriptors(-3, "KVM_CREATE_VCPU: Too many open files");
}

fn delivery_of_a_vsock_is_left_at_a_signal_after_a_failed_restart() {
    let host = Host::new();
    let mut monitor = host.launch("restart").start();
    let stream = host.accept(&mut monitor);
    File::create(host.image()).expect("an empty image");
    monitor.send(b"r");
    monitor.expect_stderr(NOTICE, DEADLINE);
    monitor.signal(Signal::SIGTERM);
    // Long before the half minute that the monitor waits by itself.
    monitor.expect_code(BAD_CONFIG, Duration::from_secs(10));
    let lost = LEN - read_to_end(stream).len();
    let line = format!("device \"v\": lost: {lost} bytes that the host's program hasn't read");
    assert!(monitor.stderr().contains(&line), "{line} isn't in {}", monitor.stderr());
}

fn delivery_of_a_vsock_is_left_at_a_second_signal() {
    let host = Host::new();
    let mut monitor = host.launch("exit").start();
    let stream = host.accept(&mut monitor);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_stderr(NOTICE, DEADLINE);
    monitor.signal(Signal::SIGTERM);
    // Long before the half minute that the monitor waits by itself.
    monitor.expect_code(BY_SIGTERM, Duration::from_secs(10));
    let lost = LEN - read_to_end(stream).len();
    let line = format!(
        "device \"v\": lost: {lost} bytes that the host's program hasn't read from the connection of guest port 5000 and \
         host port 1024"
    );
    assert!(monitor.stderr().contains(&line), "{line} isn't in {}", monitor.stderr());
}

/// Closing a terminal's window ends the output, and both the shell and the kernel send SIGHUP.
fn delivery_of_a_vsock_is_not_left_at_a_second_hang_up() {
    let host = Host::new();
    let mut monitor = host.launch("exit").start();
    let stream = host.accept(&mut monitor);
    monitor.signal(Signal::SIGHUP);
    monitor.expect_stderr(NOTICE, DEADLINE);
    monitor.signal(Signal::SIGHUP);
    // Another signal would have ended it after a second.
    std::thread::sleep(Duration::from_secs(2));
    assert_delivers(&mut monitor, stream, BY_SIGHUP);
}

/// The user's processes are as many as allowed, so the monitor can start no thread at its end.
fn delivery_of_a_vsock_is_left_at_a_second_signal_also_without_threads() {
    let host = Host::new();
    let mut monitor = host.launch("exit").wrapped(unprivileged()).start();
    let _stream = host.accept(&mut monitor);
    forbid_threads(&monitor);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_stderr(NOTICE, DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
