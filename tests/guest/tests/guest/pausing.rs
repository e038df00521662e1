//! A machine that is paused repeatedly while all its devices are busy.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use driver::{BULK_DEADLINE, DEADLINE, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::initrd::{CMDLINE, initrd_with};
use crate::linux::{ANY, image_path};
use crate::shell::Shell;
use crate::usernet::free_port;

pub(crate) fn tests() -> Vec<Trial> {
    trials![pause_a_hundred_times_under_load_loses_nothing]
}

const PAUSES: usize = 100;
/// Bytes sent in each direction of a connection.
const LEN: u64 = 2 << 20;
const DISK_LEN: u64 = 1 << 20;
/// Number of times that the whole disk is written and read.
const ROUNDS: usize = 2;
const CONSOLE_LINES: usize = 1_000;

/// Sends [`LEN`] bytes, and receives and checks as many.
fn exchange(mut stream: impl std::io::Read + Write + Send, mut sender: impl Write + Send) {
    thread::scope(|scope| {
        scope.spawn(|| guest_agent::send(&mut sender, 2, LEN).expect("the guest reads"));
        assert_eq!(guest_agent::take(&mut stream, 1).expect("the bytes that the guest sent"), LEN);
    });
}

/// Boots a guest with one device of each kind to its prompt, on a terminal.
fn start(dir: &Path, port: u16, forward: u16) -> Shell {
    std::fs::write(dir.join("disk"), vec![0; DISK_LEN as usize]).expect("room for a disk");
    let config = format!(
        r#"{{"devices": [{{"type": "block", "path": "disk"}},
             {{"type": "net", "id": "lan", "backend": "user", "allow": ["host:{port}"], "forward": ["127.0.0.1:{forward}:80"]}},
             {{"type": "vsock", "cid": 3, "path": "v.sock"}},
             {{"type": "console", "target": {{"file": "console"}}}}]}}"#
    );
    std::fs::write(dir.join("vm.json"), config).expect("room for a config");
    let drivers = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "vmw_vsock_virtio_transport"];
    let initrd = initrd_with(&drivers);
    std::fs::copy(initrd.path(), dir.join("initrd")).expect("room for an initramfs");
    let launch = Monitor::command(["--memory", "256M", "--cpus", "2", "--cmdline", CMDLINE])
        .args(["--kernel".into(), image_path(ANY), "--initrd".into(), dir.join("initrd")])
        .args(["--config".into(), dir.join("vm.json"), "--metrics".into(), dir.join("metrics")])
        .dir(dir)
        .on_terminal();
    let mut shell = Shell::boot(launch).mute();
    let said = shell.run("sh /modules/load; ip link set lo up; udhcpc -n -q -i eth0 2>&1");
    assert!(said.contains("lease of 10.0.2.15 obtained"), "{said}");
    shell
}

fn pause(shell: &mut Shell) -> String {
    shell.monitor.send(b"\x01p");
    shell.monitor.expect("\r\n[paused; Ctrl-A p resumes]\r\n", DEADLINE)
}

fn resume(shell: &mut Shell) -> String {
    shell.monitor.send(b"\x01p");
    shell.monitor.expect("\r\n[resumed]\r\n", DEADLINE)
}

/// The devices' current counters.
fn counters(shell: &Shell, dir: &Path) -> Value {
    let read = || {
        let text = std::fs::read_to_string(dir.join("metrics")).expect("the file is there");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    };
    let before = read();
    shell.monitor.signal(Signal::SIGUSR1);
    let mut now = read();
    wait_until("the counters are written", DEADLINE, || {
        now = read();
        now["uptime_ms"].is_u64() && now["uptime_ms"] != before["uptime_ms"]
    });
    now["devices"].take()
}

/// Asserts that counters don't change while the machine is paused, even with a connection from the host: the card delivers nothing to
/// the guest.
fn assert_devices_stand_still(shell: &mut Shell, dir: &Path, forward: u16) {
    pause(shell);
    let before = counters(shell, dir);
    let connections =
        [(); 3].map(|()| TcpStream::connect(("127.0.0.1", forward)).expect("the monitor listens"));
    shell.monitor.expect_quiet(Duration::from_millis(500));
    assert_eq!(counters(shell, dir), before);
    resume(shell);
    wait_until("the card gives the guest what came", DEADLINE, || counters(shell, dir) != before);
    drop(connections);
}

/// Starts a load on every device at the same time; each writes its result to its own file.
fn load(shell: &mut Shell, port: u16) {
    let round = "cat /tmp/data >/dev/vda && sync && echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/data /dev/vda && echo same";
    let disk = format!("for i in $(seq {ROUNDS}); do {round}; done");
    let works = [
        (format!("guest-agent send tcp:10.0.2.2:{port} 1 {LEN}"), "net"),
        (format!("guest-agent send vsock:2:52 1 {LEN}"), "vsock"),
        // In one subshell, because the modes of a terminal are lost when nobody has it open.
        (format!("(stty -opost; seq {CONSOLE_LINES} >&0) <>/dev/hvc0"), "console"),
        (disk, "disk"),
        // Until the host sends something.
        ("guest-agent fetch vsock:2:53 3".to_owned(), "stop"),
    ];
    shell.run(&format!("head -c {DISK_LEN} /dev/urandom >/tmp/data"));
    for (work, name) in works {
        // Not as a job of this shell, which would print a message when it is done.
        shell.run(&format!("(({work}; echo done) >/tmp/{name} 2>&1 &)"));
    }
}

fn pause_a_hundred_times_under_load_loses_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("it is bound").port();
    let forward = free_port();
    let mut shell = start(dir.path(), port, forward);
    assert_devices_stand_still(&mut shell, dir.path(), forward);
    let unix = UnixListener::bind(dir.path().join("v.sock_52")).expect("a socket");
    let stop = UnixListener::bind(dir.path().join("v.sock_53")).expect("a socket");
    let net = thread::spawn(move || {
        let (stream, _) = tcp.accept().expect("the guest connects");
        exchange(stream.try_clone().expect("a descriptor"), stream);
    });
    let vsock = thread::spawn(move || {
        let (stream, _) = unix.accept().expect("the guest connects");
        exchange(stream.try_clone().expect("a descriptor"), stream);
    });
    load(&mut shell, port);

    // The serial port prints lines, which are counted, until the other loads are done and it is stopped.
    let files = ["stop", "net", "vsock", "console", "disk"]
        .map(|name| format!("grep -qs done /tmp/{name}"))
        .join(" && ");
    let print = format!("i=0; until {files}; do echo line $i; i=$((i+1)); done; echo all of $i");
    shell.monitor.send(format!("{print}\n").as_bytes());
    let mut printed = shell.monitor.expect("line 0\r\n", DEADLINE);
    printed += "line 0\r\n";
    for _ in 0..PAUSES {
        printed += &pause(&mut shell);
        printed += &resume(&mut shell);
        // The guest runs for a while between two pauses.
        printed += &shell.monitor.expect("\r\n", DEADLINE);
        printed += "\r\n";
    }
    let (mut stream, _) = stop.accept().expect("the guest connects");
    guest_agent::send(&mut stream, 3, 1).expect("the guest reads");
    drop(stream);
    printed += &shell.monitor.expect("all of ", BULK_DEADLINE);
    let count: usize = shell.monitor.expect("\r\n", DEADLINE).parse().expect("a number");
    let expected: String = (0..count).map(|line| format!("line {line}\r\n")).collect();
    assert!(printed == expected, "{count} lines, {} bytes of {}", printed.len(), expected.len());

    shell.monitor.expect("# ", DEADLINE);
    let mut said = |name: &str| shell.run(&format!("cat /tmp/{name}"));
    let sent = format!("sent {LEN}, then {LEN} came\ndone\n");
    assert_eq!([said("net"), said("vsock")], [sent.clone(), sent]);
    assert_eq!(said("disk"), "same\n".repeat(ROUNDS) + "done\n");
    assert_eq!(said("console"), "done\n");
    let complaints = shell.run("dmesg | grep -iE 'lockup|stall|hung|error|fail' ");
    assert_eq!(complaints, "");
    net.join().expect("all was exchanged");
    vsock.join().expect("all was exchanged");
    shell.reboot();
    let lines: String = (1..=CONSOLE_LINES).map(|line| format!("{line}\n")).collect();
    let console = std::fs::read_to_string(dir.path().join("console")).expect("digits");
    assert!(console == lines, "{} bytes of {}", console.len(), lines.len());
}
