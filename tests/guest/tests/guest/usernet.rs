//! A network card in user mode: no root, no TAP, and only listed destinations are reachable.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use driver::{DEADLINE, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use rig::Assets;
use tempfile::NamedTempFile;

use crate::initrd::{initrd_with, initrd_with_files};
use crate::net::{Tap, busybox};
use crate::shell::Shell;
use crate::virtio::{counter, guest_from, guest_with};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        usernet_gives_an_address_names_pages_by_curl_and_pings,
        usernet_carries_bytes_both_ways_and_into_the_guest,
        usernet_refuses_at_once_what_is_not_listed,
        usernet_star_is_the_world_but_no_private_network,
        usernet_link_works_behind_floods,
        usernet_driver_that_leaves_and_comes_back_finds_its_link,
    ]
}

/// Fetches files that can't be fetched inside the rig.
pub(crate) fn prepare() -> Result<(), rig::Error> {
    Assets::here().curl().map(drop)
}

const DRIVERS: &[&str] = &["virtio_pci", "virtio_net"];

/// A guest with a user-mode network card.
struct Guest {
    shell: Shell,
    metrics: NamedTempFile,
}

impl Guest {
    /// Boots a guest whose card has these fields besides type, id and backend.
    #[track_caller]
    fn start(fields: &str) -> Self {
        Self::start_from(&initrd_with(DRIVERS), fields)
    }

    #[track_caller]
    fn start_from(initrd: &NamedTempFile, fields: &str) -> Self {
        let metrics = NamedTempFile::new().expect("a temporary file");
        let devices = format!(r#"[{{"type": "net", "id": "lan", "backend": "user", {fields}}}]"#);
        let flags = ["--metrics", metrics.path().to_str().expect("UTF-8")];
        let mut guest = Self { shell: guest_from(initrd, &devices, &flags), metrics };
        guest.ask_for_address();
        guest
    }

    #[track_caller]
    fn ask_for_address(&mut self) {
        let said = self.shell.run("ip link set lo up; udhcpc -n -q -i eth0 2>&1");
        assert!(said.contains("lease of 10.0.2.15 obtained"), "{said}");
    }

    #[track_caller]
    fn assert_pings(&mut self, address: &str) {
        let said = self.shell.run_within(&format!("ping -c 3 -W 5 {address}"), DEADLINE);
        assert!(said.contains(" 0% packet loss"), "{said}");
    }

    /// Runs a command of `guest-agent` that prints its time and result, as in "3 ms: done".
    #[track_caller]
    fn timed(&mut self, command: &str) -> (u64, String) {
        let said = self.shell.run_within(&format!("guest-agent {command}"), DEADLINE);
        let (ms, outcome) =
            said.trim_end().split_once(" ms: ").unwrap_or_else(|| panic!("{command}: {said}"));
        (ms.parse().expect("milliseconds"), outcome.to_owned())
    }

    #[track_caller]
    fn end(mut self) -> NamedTempFile {
        self.shell.reboot();
        assert_eq!(counter(self.metrics.path(), "lan", "faults"), 0);
        self.metrics
    }
}

/// Starts a server that handles each connection with `serve` until the test ends; returns its port.
fn server(address: &str, serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || listener.incoming().flatten().for_each(&serve));
    port
}

/// Serves a page by HTTP.
fn page(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let len = stream.read(&mut request).unwrap_or(0);
    let path = String::from_utf8_lossy(&request[..len]).split(' ').nth(1).unwrap_or_default().to_owned();
    let body = format!("page {path}\n");
    let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

/// Starts a resolver whose every name is the gateway, by IPv4, or by IPv6 if it begins with "six" (RFC 1035 §4); returns its port. No name
/// has both: the guest would take one of IPv6 only once its own address of IPv6 is there.
fn resolver() -> u16 {
    const ANSWER: [u8; 2] = [0x81, 0x80];
    const AAAA: u8 = 28;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            // The header has 12 bytes, the name ends with a zero byte, type and class have four bytes.
            let Some(name_len) = query[12..len].iter().position(|byte| *byte == 0) else { continue };
            let end = 12 + name_len + 5;
            let asks_ipv6 = query[end - 3] == AAAA;
            let address: &[u8] = if asks_ipv6 {
                &[0xfd, 0x76, 0x6d, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
            } else {
                &[10, 0, 2, 2]
            };
            // One question, at most one answer: a pointer to the name at byte 12, class IN, with a TTL of a minute.
            let has_address = asks_ipv6 == query[12..].starts_with(b"\x03six");
            let header = [&query[..2], &ANSWER, &[0, 1, 0, u8::from(has_address), 0, 0, 0, 0]].concat();
            let kind = [0, query[end - 3], 0, 1, 0, 0, 0, 60, 0, address.len() as u8];
            let answer = [&[0xc0, 12], &kind[..], address].concat();
            let answer = if has_address { &answer[..] } else { &[] };
            let _ = socket.send_to(&[&header, &query[12..end], answer].concat(), from);
        }
    });
    port
}

fn usernet_gives_an_address_names_pages_by_curl_and_pings() {
    let (dns, web, web6) = (resolver(), server("127.0.0.1", page), server("::1", page));
    let (curl, forward) = (Assets::here().curl().expect("it was fetched"), free_port());
    let fields = format!(
        r#""allow": ["dns", "host:{web}", "host:{web6}"], "dns": "127.0.0.1:{dns}", "mtu": 1500,
            "forward": ["127.0.0.1:{forward}:80"]"#
    );
    let mut guest = Guest::start_from(&initrd_with_files(DRIVERS, &curl), &fields);
    let shell = &mut guest.shell;
    let addresses =
        shell.run("ip -4 addr show eth0; ip route; cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu");
    assert!(addresses.contains("inet 10.0.2.15/24"), "{addresses}");
    assert!(addresses.contains("default via 10.0.2.2"), "{addresses}");
    assert!(addresses.ends_with("nameserver 10.0.2.3\n1500\n"), "{addresses}");
    // The query goes through the resolver at 10.0.2.3 to the test's own resolver.
    let said = shell.run(&format!("wget -q -O - http://any.name:{web}/by-name"));
    assert_eq!(said, "page /by-name\n");
    let curl_there = "/opt/ld.so --library-path /opt /opt/curl --silent --show-error";
    let said = shell.run(&format!("{curl_there} http://another.name:{web}/by-curl"));
    assert_eq!(said, "page /by-curl\n");
    // The other direction: into the guest.
    assert_eq!(shell.run("echo from the guest >index.html; httpd -h .; echo $?"), "0\n");
    let [loader, words @ ..] = rig::programs::command(&curl, "curl");
    let page = Command::new(loader)
        .args(words)
        .args(["--silent", "--show-error", "--max-time", "20", &format!("http://127.0.0.1:{forward}/")])
        .output()
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&page.stdout), "from the guest\n", "{page:?}");
    guest.assert_pings("10.0.2.2");
    guest.assert_pings("10.0.2.3");
    // The address comes from a router advertisement; Linux checks for a second whether it is a duplicate.
    let shell = &mut guest.shell;
    wait_until("there is an address of IPv6", DEADLINE, || {
        let addresses = shell.run("ip -6 addr show eth0 scope global");
        addresses.contains("fd76:6d6d:") && !addresses.contains("tentative")
    });
    let said = shell.run(&format!("wget -q -O - 'http://[fd76:6d6d::2]:{web6}/by-ipv6'"));
    assert_eq!(said, "page /by-ipv6\n");
    let said = shell.run(&format!("wget -q -O - http://six.name:{web6}/by-six"));
    assert_eq!(said, "page /by-six\n");
    guest.assert_pings("fd76:6d6d::2");
    guest.end();
}

/// Bytes sent through a connection: many times the monitor's buffer.
const LEN: u64 = 2 << 20;

fn usernet_carries_bytes_both_ways_and_into_the_guest() {
    let sent = server("127.0.0.1", |mut stream| {
        // Sending and receiving at the same time, on one connection.
        let mut sender = stream.try_clone().expect("a descriptor");
        let sending = thread::spawn(move || {
            guest_agent::send(&mut sender, 2, LEN).expect("the guest reads");
            sender.shutdown(std::net::Shutdown::Write).expect("it is open");
        });
        assert_eq!(guest_agent::take(&mut stream, 1).expect("the bytes that the guest sent"), LEN);
        sending.join().expect("all was sent");
    });
    let given = server("127.0.0.1", |mut stream| guest_agent::send(&mut stream, 3, LEN).expect("it reads"));
    let forward = free_port();
    let fields = format!(r#""allow": ["host:{sent}", "host:{given}"], "forward": ["127.0.0.1:{forward}:7"]"#);
    let mut guest = Guest::start(&fields);
    let shell = &mut guest.shell;
    // The default MTU, close to the maximum length of an IP packet.
    assert_eq!(shell.run("cat /sys/class/net/eth0/mtu"), "65520\n");
    let said = shell.run_within(&format!("guest-agent send tcp:10.0.2.2:{sent} 1 {LEN}"), DEADLINE);
    assert_eq!(said, format!("sent {LEN}, then {LEN} came\n"));
    let said = shell.run_within(&format!("guest-agent fetch tcp:10.0.2.2:{given} 3"), DEADLINE);
    assert_eq!(said, format!("took {LEN}\n"));
    // From the host into the guest, which echoes; both sides see the end of the connection.
    assert_eq!(shell.run("guest-agent echo tcp:7 & sleep 1"), "listening\n");
    let mut stream = TcpStream::connect(("127.0.0.1", forward)).expect("the monitor listens");
    let mut sender = stream.try_clone().expect("a descriptor");
    let sending = thread::spawn(move || {
        guest_agent::send(&mut sender, 4, LEN).expect("the guest reads");
        sender.shutdown(std::net::Shutdown::Write).expect("it is open");
    });
    assert_eq!(guest_agent::take(&mut stream, 4).expect("the echo"), LEN);
    sending.join().expect("all was sent");
    guest.end();
}

/// A port that is free at the time of the call.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Maximum time of a refusal in milliseconds.
const AT_ONCE: u64 = 100;

fn usernet_refuses_at_once_what_is_not_listed() {
    let closed = server("127.0.0.1", page);
    let open = server("127.0.0.1", page);
    let mut guest = Guest::start(&format!(r#""allow": ["host:{open}"]"#));
    // The first packet has to wait for ARP.
    let (_, outcome) = guest.timed(&format!("connect tcp:10.0.2.2:{open}"));
    assert_eq!(outcome, "done");
    for (command, refusal) in [
        (format!("connect tcp:10.0.2.2:{closed}"), "Connection refused"),
        (format!("connect tcp:10.0.2.2:{closed}"), "Connection refused"),
        ("connect tcp:192.0.2.7:443".to_owned(), "Connection refused"),
        ("connect tcp:10.0.2.3:53".to_owned(), "Connection refused"),
        (format!("ask 10.0.2.2:{closed}"), "No route to host"),
        ("ask 10.0.2.3:53".to_owned(), "No route to host"),
    ] {
        let (ms, outcome) = guest.timed(&command);
        assert!(ms < AT_ONCE && outcome.starts_with(refusal), "{command}: {ms} ms: {outcome}");
    }
    let said = guest.shell.monitor.stderr();
    for destination in [
        format!("tcp 10.0.2.2:{closed}"),
        "tcp 192.0.2.7:443".to_owned(),
        "tcp 10.0.2.3:53".to_owned(),
        format!("udp 10.0.2.2:{closed}"),
        "udp 10.0.2.3:53".to_owned(),
    ] {
        let times = said.matches(&format!("refused {destination}")).count();
        assert_eq!(times, 1, "{destination} is told once: {said}");
    }
    let metrics = guest.end();
    assert_eq!(counter(metrics.path(), "lan", "refused"), 6);
}

/// Whether the monitor, which as root becomes nobody, may send echo requests (Linux, Documentation/networking/ip-sysctl.rst, ping_group_range). In the rig
/// this is switched on; the configuration of a host isn't changed.
fn may_ask_for_echoes() -> bool {
    const RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";
    let group = match nix::unistd::getegid().as_raw() {
        0 => 65534,
        group => group,
    };
    if rig::in_rig() {
        fs::write(RANGE, format!("{group} {group}")).expect("in the rig we may");
    }
    let range = fs::read_to_string(RANGE).unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().map(|end| end.parse().unwrap_or(u32::MAX));
    let (first, last) = (ends.next().unwrap_or(1), ends.next().unwrap_or(0));
    (first..=last).contains(&group)
}

fn assert_refused_at_once(guest: &mut Guest, destination: &str) {
    let (ms, outcome) = guest.timed(&format!("connect tcp:{destination}"));
    assert!(ms < AT_ONCE && outcome.starts_with("Connection refused"), "{destination}: {ms} ms: {outcome}");
}

/// Another guest, connected by a TAP, acts as a router to a public address, as a machine in a private network, and as one in a public
/// network to which the host is directly connected. No packet leaves the host.
fn usernet_star_is_the_world_but_no_private_network() {
    let _tap = Tap::make_if_needed("vmmtest9", 1);
    let devices = r#"[{"type": "net", "backend": {"tap": "vmmtest9"}}]"#;
    let mut world = guest_with(devices, &["virtio_net"], &[]);
    for address in ["9.9.10.1/24", "10.77.9.1/24"] {
        busybox(&format!("ip addr add {address} dev vmmtest9"));
    }
    busybox("ip link set vmmtest9 up");
    busybox("ip route add 9.9.9.0/24 via 10.77.9.2 dev vmmtest9");
    let up = "ip addr add 9.9.9.2/32 dev lo; ip addr add 9.9.10.2/24 dev eth0; ip addr add 10.77.9.2/24 dev eth0; \
              ip link set lo up; ip link set eth0 up; echo world >index.html; httpd -h .; echo $?";
    assert_eq!(world.run(up), "0\n");
    let mut guest = Guest::start(r#""allow": ["tcp:*:80", "tcp:9.9.9.0/24:81", "icmp:9.9.9.2"]"#);
    let shell = &mut guest.shell;
    assert_eq!(shell.run("wget -q -O - http://9.9.9.2/"), "world\n");
    let said = shell.run("wget -O - http://10.77.9.2/ 2>&1");
    assert!(said.contains("Connection refused"), "{said}");
    // The host's own address in that network isn't the public internet.
    assert_refused_at_once(&mut guest, "9.9.10.1:80");
    // Neither is a directly connected machine, even with a public address; that one listens.
    assert_refused_at_once(&mut guest, "9.9.10.2:80");
    assert_refused_at_once(&mut guest, "168.63.129.16:80");
    // This address is permitted, and it is the other machine that refuses the connection.
    let (_, outcome) = guest.timed("connect tcp:9.9.9.2:81");
    assert!(outcome.starts_with("Connection refused"), "{outcome}");
    if may_ask_for_echoes() {
        guest.assert_pings("9.9.9.2");
    }
    let said = guest.shell.monitor.stderr();
    for refused in ["10.77.9.2:80", "9.9.10.1:80", "9.9.10.2:80", "168.63.129.16:80"] {
        assert!(said.contains(&format!("refused tcp {refused}")), "{refused}: {said}");
    }
    assert!(!said.contains("9.9.9.2"), "{said}");
    guest.end();
    world.reboot();
}

/// Duration of each flood, in which the monitor receives many times what it buffers. The long flood test is that of a TAP (net.rs).
const FLOOD: Duration = Duration::from_secs(5);

fn usernet_link_works_behind_floods() {
    let web = server("127.0.0.1", page);
    let sink = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sink_port = sink.local_addr().expect("it is bound").port();
    let forward =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let fields =
        format!(r#""allow": ["host:{web}", "host:{sink_port}"], "forward": ["udp:127.0.0.1:{forward}:9"]"#);
    let mut guest = Guest::start(&fields);
    let before = guest.shell.monitor.rss_anon_kib();
    // Nobody receives them: neither the socket here nor a program in the guest.
    let flood = format!("guest-agent flood 10.0.2.2:{sink_port} {}", FLOOD.as_secs());
    let said = guest.shell.run_within(&flood, DEADLINE + FLOOD);
    assert!(said.starts_with("sent "), "{said}");
    assert_eq!(guest.shell.run(&format!("wget -q -O - http://10.0.2.2:{web}/1")), "page /1\n");
    let flood = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let until = std::time::Instant::now() + FLOOD;
    let mut sent = 0_u64;
    while std::time::Instant::now() < until {
        sent += u64::from(flood.send_to(&[0; 1400], ("127.0.0.1", forward)).is_ok());
    }
    assert!(sent > 1000, "{sent} datagrams are no flood");
    assert_eq!(guest.shell.run(&format!("wget -q -O - http://10.0.2.2:{web}/2")), "page /2\n");
    guest.assert_pings("10.0.2.2");
    let after = guest.shell.monitor.rss_anon_kib();
    assert!(after < before + (64 << 10), "{before} KiB, then {after} KiB");
    guest.end();
}

fn usernet_driver_that_leaves_and_comes_back_finds_its_link() {
    let web = server("127.0.0.1", page);
    let mut guest = Guest::start(&format!(r#""allow": ["host:{web}"]"#));
    let get = format!("wget -q -O - http://10.0.2.2:{web}/x");
    assert_eq!(guest.shell.run(&get), "page /x\n");
    guest.shell.run("cd /sys/bus/virtio/drivers/virtio_net; echo virtio0 >unbind; echo virtio0 >bind; cd /");
    guest.ask_for_address();
    assert_eq!(guest.shell.run(&get), "page /x\n");
    guest.end();
}
