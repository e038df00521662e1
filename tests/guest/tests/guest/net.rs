//! A network card with a TAP on the host and Linux's driver. Root's monitor creates the TAP, which disappears when it exits; for an
//! ordinary user's, the test does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use driver::{DEADLINE, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use rig::Assets;
use tempfile::NamedTempFile;

use crate::linux::{BAD_CONFIG, BAD_HOST};
use crate::shell::Shell;
use crate::virtio::{counter, guest_with};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        net_carries_pings_and_a_mebibyte_both_ways,
        net_with_two_vcpus_has_two_pairs_of_queues,
        net_link_goes_down_and_up_with_the_tap,
        net_link_works_behind_a_flood,
        net_driver_that_leaves_and_comes_back_finds_its_link,
        net_tap_that_cannot_be_had_says_why,
    ]
}

/// A guest with a TAP, `vmmtest<subnet>`; the host's address is 10.77.`subnet`.1, the guest's .2.
pub(crate) struct Network {
    pub(crate) shell: Shell,
    subnet: u8,
    metrics: NamedTempFile,
    /// Deleted after the shell's monitor has ended.
    _tap: Option<Tap>,
}

/// A TAP that belongs to the user of this process. Dropping it deletes it.
pub(crate) struct Tap(String);

impl Tap {
    /// Creates the TAP for a monitor that can't because it is an ordinary user's, with a pair of queues for each vCPU. For root's
    /// monitor there is `None`.
    #[track_caller]
    pub(crate) fn make_if_needed(name: &str, vcpus: u32) -> Option<Self> {
        let is_needed = driver::is_as_user();
        is_needed.then(|| {
            let queues = if vcpus > 1 { " multi_queue" } else { "" };
            let user = nix::unistd::geteuid();
            // Busybox's `ip` can't create a TAP.
            let words = format!("tuntap add dev {name} mode tap user {user}{queues}");
            let status = Command::new("ip").args(words.split(' ')).status().expect("iproute2 is installed");
            assert!(status.success(), "ip {words}: {status}");
            Self(name.to_owned())
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // If this fails, it stays.
        let _ = Command::new("ip").args(["link", "delete", &self.0]).status();
    }
}

/// The package of a program that these tests use.
pub(crate) fn prepare() -> Result<(), rig::Error> {
    match rig::packages::find_program("ip") {
        Some(_) => Ok(()),
        None => rig::packages::install(&["iproute2"]),
    }
}

/// Runs a Busybox applet on the host.
#[track_caller]
pub(crate) fn busybox(words: &str) -> String {
    let program = Assets::here().busybox().expect("it is prepared");
    let output = Command::new(program).args(words.split(' ')).output().expect("it can be started");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

impl Network {
    /// Each test has its own subnet, because they run in parallel.
    #[track_caller]
    fn start(subnet: u8, flags: &[&str]) -> Self {
        Self::start_with(subnet, "", flags)
    }

    /// As above, for a card with these additional fields, each preceded by a comma.
    #[track_caller]
    pub(crate) fn start_with(subnet: u8, fields: &str, flags: &[&str]) -> Self {
        let metrics = NamedTempFile::new().expect("a temporary file");
        let devices = format!(
            r#"[{{"type": "net", "id": "lan", "backend": {{"tap": "vmmtest{subnet}"}}, "mtu": 1500{fields}}}]"#
        );
        let metrics_flag = ["--metrics", metrics.path().to_str().expect("UTF-8")];
        let tap =
            Tap::make_if_needed(&format!("vmmtest{subnet}"), if flags == ["--cpus", "2"] { 2 } else { 1 });
        let shell = guest_with(&devices, &["virtio_net"], &[&metrics_flag, flags].concat());
        Self { _tap: tap, ..Self::set_up(subnet, shell, metrics) }
    }

    /// The network of a guest at its prompt. Its card is called lan, uses the TAP of this subnet, and its counters are in `metrics`.
    #[track_caller]
    pub(crate) fn set_up(subnet: u8, shell: Shell, metrics: NamedTempFile) -> Self {
        busybox(&format!("ip addr add 10.77.{subnet}.1/24 dev vmmtest{subnet}"));
        busybox(&format!("ip link set vmmtest{subnet} up"));
        let mut network = Self { shell, subnet, metrics, _tap: None };
        network.set_up_guest();
        network
    }

    #[track_caller]
    pub(crate) fn set_up_guest(&mut self) {
        let subnet = self.subnet;
        let up = format!("ip addr add 10.77.{subnet}.2/24 dev eth0 && ip link set eth0 up; echo $?");
        assert_eq!(self.shell.run(&up), "0\n");
        self.wait_for_carrier("1\n");
    }

    /// Waits until the guest's link has this state, which follows the TAP's on the host.
    #[track_caller]
    fn wait_for_carrier(&mut self, carrier: &str) {
        let shell = &mut self.shell;
        wait_until("the link follows the TAP", DEADLINE, || {
            shell.run("cat /sys/class/net/eth0/carrier") == carrier
        });
    }

    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 1)
    }

    pub(crate) fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 2)
    }

    #[track_caller]
    pub(crate) fn assert_pings(&mut self) {
        let host = self.host();
        let printed = self.shell.run_within(&format!("ping -c 3 -W 5 {host}"), DEADLINE);
        assert!(printed.contains(" 0% packet loss"), "{printed}");
        let printed = busybox(&format!("ping -c 3 -W 5 {}", self.guest()));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }

    /// Runs `command` in the guest, in which `NC` stands for a connection to a port of the host, where `talk` uses it. Returns what the
    /// command prints.
    pub(crate) fn connected(
        &mut self,
        command: &str,
        talk: impl FnOnce(TcpStream) + Send + 'static,
    ) -> String {
        let listener = TcpListener::bind((self.host(), 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let talking = std::thread::spawn(move || talk(listener.accept().expect("the guest connects").0));
        let command = command.replace("NC", &format!("nc {} {port}", self.host()));
        let printed = self.shell.run_within(&command, DEADLINE);
        talking.join().expect("the host's end is content");
        printed
    }

    /// Ends the guest; returns the file with the device's counters.
    #[track_caller]
    pub(crate) fn end(mut self) -> NamedTempFile {
        self.shell.reboot();
        assert_eq!(counter(self.metrics.path(), "lan", "faults"), 0);
        self.metrics
    }
}

/// A mebibyte of data that doesn't repeat with the length of a frame.
pub(crate) fn mebibyte() -> Vec<u8> {
    (0_u32..1 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn net_carries_pings_and_a_mebibyte_both_ways() {
    let mut network = Network::start(1, &[]);
    network.assert_pings();
    let send = |mut stream: TcpStream| stream.write_all(&mebibyte()).expect("the guest reads");
    assert_eq!(network.connected("NC </dev/null >/tmp/file; wc -c </tmp/file", send), "1048576\n");
    network.connected("NC </tmp/file", |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the guest sends");
        assert!(bytes == mebibyte(), "{} bytes came back", bytes.len());
    });
    // One character per feature bit, from bit 0: CSUM, GUEST_CSUM, MTU, MAC, GUEST_TSO4, HOST_TSO4, MRG_RXBUF, STATUS; one queue pair.
    let features = network.shell.run("cat /sys/class/net/eth0/device/features");
    let has = |bit: usize| features.as_bytes()[bit] == b'1';
    assert!([0, 1, 3, 5, 7, 11, 15, 16].into_iter().all(has) && !has(22), "{features}");
    network.end();
}

fn net_with_two_vcpus_has_two_pairs_of_queues() {
    let mut network = Network::start(2, &["--cpus", "2"]);
    assert_eq!(network.shell.run("ls /sys/class/net/eth0/queues"), "rx-0  rx-1  tx-0  tx-1\n");
    network.assert_pings();
    // Connections are distributed by a hash: of eight, each queue pair gets some.
    for _ in 0..8 {
        let send = |mut stream: TcpStream| stream.write_all(&mebibyte()).expect("the guest reads");
        assert_eq!(network.connected("NC </dev/null | wc -c", send), "1048576\n");
    }
    network.end();
}

/// Half a minute of datagrams that nobody receives, as fast as the host can send.
fn net_link_goes_down_and_up_with_the_tap() {
    let mut network = Network::start(6, &[]);
    network.assert_pings();
    busybox("ip link set vmmtest6 down");
    network.wait_for_carrier("0\n");
    busybox("ip link set vmmtest6 up");
    network.wait_for_carrier("1\n");
    network.assert_pings();
    network.end();
}

fn net_link_works_behind_a_flood() {
    let mut network = Network::start(3, &[]);
    network.assert_pings();
    let before = network.shell.monitor.rss_anon_kib();
    let socket = UdpSocket::bind((network.host(), 0)).expect("a port");
    let until = Instant::now() + Duration::from_secs(30);
    let mut sent = 0_u64;
    while Instant::now() < until {
        // Errors are expected: the kernel may have no buffer, or report that nobody listens at that port.
        sent += u64::from(socket.send_to(&[0; 1400], (network.guest(), 9)).is_ok());
    }
    assert!(sent > 1000, "{sent} datagrams are no flood");
    network.assert_pings();
    let after = network.shell.monitor.rss_anon_kib();
    assert!(after < before + (64 << 10), "{before} KiB, then {after} KiB");
    network.end();
}

fn net_driver_that_leaves_and_comes_back_finds_its_link() {
    let mut network = Network::start(4, &["--cpus", "2"]);
    network.assert_pings();
    network
        .shell
        .run("cd /sys/bus/virtio/drivers/virtio_net; echo virtio0 >unbind; echo virtio0 >bind; cd /");
    network.set_up_guest();
    network.assert_pings();
    network.end();
}

/// Asserts that a machine with these devices is rejected with this code and message.
#[track_caller]
pub(crate) fn assert_refused(cpus: u32, devices: &str, code: i32, message: &str) {
    let config = NamedTempFile::new().expect("a temporary file");
    let kernel = crate::linux::image_path(crate::linux::ANY);
    let config_text = format!(
        r#"{{"boot": {{"kernel": {kernel:?}}}, "cpus": {{"count": {cpus}}}, "devices": [{devices}]}}"#
    );
    std::fs::write(config.path(), config_text).expect("room for a config");
    let words = ["--check", "--config", config.path().to_str().expect("UTF-8")];
    let mut monitor = Monitor::command(words).start();
    monitor.expect_code(code, DEADLINE);
    assert!(monitor.stderr().contains(message), "{}", monitor.stderr());
}

fn net_tap_that_cannot_be_had_says_why() {
    let message = "devices[0].backend.tap: lo isn't a TAP: `sudo ip tuntap add lo mode tap user $USER` with another name creates one";
    assert_refused(1, r#"{"type": "net", "backend": {"tap": "lo"}}"#, BAD_CONFIG, message);
    let message =
        "devices[1].backend.tap: vmmtest5 is in use by another program: stop that one, or use another TAP";
    let tap = r#"{"type": "net", "backend": {"tap": "vmmtest5"}}"#;
    // With two vCPUs it is a multi-queue TAP, which the kernel would allow two cards to share.
    for vcpus in [1, 2] {
        let _tap = Tap::make_if_needed("vmmtest5", vcpus);
        assert_refused(vcpus, &format!("{tap}, {tap}"), BAD_HOST, message);
    }
}
