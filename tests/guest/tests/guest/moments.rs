//! Linux is saved at random moments of a load on all of its devices, and goes on after the restore.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver::{BULK_DEADLINE, DEADLINE, Monitor};
use guest_agent::Pattern;
use harness::trials;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::initrd::{CMDLINE, initrd_with_all};
use crate::linux::{ANY, image_path};
use crate::paste::lines_of_64_kib;
use crate::saved::Machine;

pub(crate) fn tests() -> Vec<Trial> {
    let long = trials![
        snapshot_at_ten_random_moments_loses_nothing,
        snapshot_at_a_hundred_random_moments_loses_nothing,
    ];
    long.into_iter().map(|test| test.with_ignored_flag(true)).collect()
}

fn snapshot_at_ten_random_moments_loses_nothing() {
    check(10);
}

fn snapshot_at_a_hundred_random_moments_loses_nothing() {
    check(100);
}

const DISK_LEN: u64 = 1 << 20;
/// Bytes that the host sends by each connection. That is long enough for a snapshot to fall into it.
const LEN: u64 = 256 << 10;
/// The most of the text that is pasted before a snapshot, in bytes: more than the terminals hold.
const PASTE_LEN: u64 = 16 << 10;
/// The longest pause between the paste and the snapshot, in which the guest does several of its works.
const PAUSE_MS: u64 = 1500;

/// What the guest does all the time, and the word for each success, which it writes to the file of this name.
fn works(port: u16) -> [(&'static str, &'static str, String); 5] {
    // Different data each time, so that a write that is lost leaves a difference.
    let disk = "for data in a b; do cat /tmp/$data >/dev/vda && sync && echo 3 >/proc/sys/vm/drop_caches && \
                cmp /tmp/$data /dev/vda && echo same || echo differs; done";
    [
        ("disk", "same", disk.to_owned()),
        ("tcp", "took", format!("guest-agent fetch tcp:10.0.2.2:{port} 7")),
        ("vsock", "took", "guest-agent fetch vsock:2:52 8".to_owned()),
        (
            "ping",
            "pong",
            "ping -c 1 -W 20 10.0.2.2 >/dev/null && echo pong || echo lost; sleep 0.2".to_owned(),
        ),
        ("timer", "tick", "sleep 0.2; echo tick".to_owned()),
    ]
}

/// The random choices. The seed is printed if the test fails, but with the same choices the guest may be elsewhere.
struct Random {
    seed: u64,
    pattern: Pattern,
    round: usize,
}

impl Random {
    fn new() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
        let seed = u64::from(time.subsec_nanos());
        Self { seed, pattern: Pattern::new(seed), round: 0 }
    }

    fn up_to(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.pattern.fill(&mut bytes);
        u64::from_le_bytes(bytes) % (limit + 1)
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {}, round {}", self.seed, self.round);
        }
    }
}

/// Sends [`LEN`] bytes to each client of `accept` until the test ends. Clients may leave early.
fn serve<S: Write + Send + 'static>(
    seed: u64,
    mut accept: impl FnMut() -> S + Send + 'static,
    end: impl Fn(&S) + Copy + Send + 'static,
) {
    thread::spawn(move || {
        loop {
            let mut stream = accept();
            thread::spawn(move || {
                let _ = guest_agent::send(&mut stream, seed, LEN);
                end(&stream);
            });
        }
    });
}

/// Boots the guest, muted, with its work running.
fn start(dir: &Path) -> Machine {
    std::fs::write(dir.join("disk"), vec![0; DISK_LEN as usize]).expect("room for a disk");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("it is bound").port();
    let unix = UnixListener::bind(dir.join("v.sock_52")).expect("a socket");
    serve(7, move || tcp.accept().expect("a client").0, |stream| drop(stream.shutdown(Shutdown::Write)));
    serve(8, move || unix.accept().expect("a client").0, |stream| drop(stream.shutdown(Shutdown::Write)));
    let config = format!(
        r#"{{"cpus": {{"count": 2}}, "memory": {{"size": "512M"}}, "devices": [{{"type": "block", "path": "disk"}},
            {{"type": "net", "backend": "user", "allow": ["host:{port}"]}}, {{"type": "vsock", "cid": 3, "path": "v.sock"}}]}}"#
    );
    std::fs::write(dir.join("vm.json"), config).expect("room for a config");
    let drivers = ["virtio_pci", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport"];
    let initrd = initrd_with_all(&drivers, vec![("text".to_owned(), lines_of_64_kib().into_bytes())]);
    let launch = Monitor::command(["--config", "vm.json", "--cmdline", CMDLINE])
        .args(["--kernel".into(), image_path(ANY)])
        .args(["--initrd".as_ref(), initrd.path().as_os_str()]);
    let mut machine = Machine::boot(launch, dir, "vm.sock").assert_echoes_and_mute();
    let said = machine.shell.run("sh /modules/load; ip link set lo up; udhcpc -n -q -i eth0 2>&1");
    assert!(said.contains("lease of 10.0.2.15 obtained"), "{said}");
    machine.shell.run(&format!("for f in a b; do head -c {DISK_LEN} /dev/urandom >/tmp/$f; done"));
    for (name, _, work) in works(port) {
        // Not as a job of this shell, which would print a message when it is done.
        machine.shell.run(&format!("((while :; do {work}; done) >/tmp/{name} 2>&1 &)"));
    }
    let next =
        r#"next() { n=$(grep -c $2 /tmp/$1); until [ $(grep -c $2 /tmp/$1) -gt $n ]; do sleep 0.1; done; }"#;
    machine.shell.run(next);
    machine
}

/// What the guest sees of a connection or ping that a restore ends. Linux reports a vsock's reset as the third one if nobody was waiting for
/// data (vsock_connectible_recvmsg), and doesn't apply the reset to one that it is still opening, so that its connect() gives up.
const CUT_OFF: [&str; 4] = [
    "lost",
    "failed: Connection reset by peer",
    "failed: Transport endpoint is not connected",
    "failed: Connection timed out",
];

/// Waits until each of the guest's works has succeeded once more, and checks all results so far: in `rounds` snapshots, not more than one
/// connection or ping each was cut off, and nothing was wrong.
#[track_caller]
fn assert_works(machine: &mut Machine, rounds: usize) {
    for (name, word, _) in works(0) {
        machine.shell.run_within(&format!("next {name} {word}"), BULK_DEADLINE);
        let said = machine.shell.run(&format!("grep -v '^{word}' /tmp/{name}"));
        let may_break = ["tcp", "vsock", "ping"].contains(&name);
        let is_cut_off = |line: &str| CUT_OFF.iter().any(|start| line.starts_with(start));
        let allowed = if may_break { rounds } else { 0 };
        assert!(said.lines().count() <= allowed && said.lines().all(is_cut_off), "{name}: {said}");
    }
    let whole = "cat /tmp/tcp /tmp/vsock | grep took | sort -u";
    assert_eq!(machine.shell.run(whole), format!("took {LEN}\n"));
}

fn check(rounds: usize) {
    let dir = TempDir::new().expect("a temporary directory");
    let mut random = Random::new();
    let text = lines_of_64_kib();
    let mut machine = start(dir.path());
    assert_works(&mut machine, 0);
    let log = machine.log_len();
    for round in 1..=rounds {
        random.round = round;
        machine.shell.monitor.send(b"cat >/tmp/pasted\n");
        machine.shell.monitor.send(&text.as_bytes()[..random.up_to(PASTE_LEN) as usize]);
        // A moment can't be waited for: it is what the test is about.
        thread::sleep(Duration::from_millis(random.up_to(PAUSE_MS)));
        let up = machine.save_and_stop("snap");
        machine = Machine::restore(dir.path(), "snap", "vm.sock", up);
        // The end of the last line and of the file. What the guest hadn't read of the paste isn't in the snapshot.
        machine.shell.monitor.send(b"\n\x04");
        machine.shell.monitor.expect("# ", DEADLINE);
        // The machine has the memory file mapped, and needs no name.
        std::fs::remove_dir_all(dir.path().join("snap")).expect("the snapshot is there");
        machine.unmute();
        machine = machine.assert_echoes_and_mute();
        let is_prefix = "len=$(($(wc -c </tmp/pasted) - 1)); head -c $len /opt/text >/tmp/part; echo >>/tmp/part; \
                         cmp /tmp/part /tmp/pasted && echo same";
        assert_eq!(machine.shell.run(is_prefix), "same\n");
        machine.assert_time_passes();
        assert_works(&mut machine, round);
        machine.assert_no_warning_since(log);
    }
    machine.power_off();
}
