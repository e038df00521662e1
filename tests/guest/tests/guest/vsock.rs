//! A vsock device with Linux's driver: connections to and from unix sockets on the host.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::shell::Shell;
use crate::virtio::guest_with;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        vsock_agents_talk_in_both_directions,
        vsock_a_thousand_connections_at_once,
        vsock_driver_that_leaves_and_comes_back_finds_its_device,
    ]
}

/// A guest with a vsock device whose sockets are in a temporary directory.
struct Guest {
    shell: Shell,
    dir: TempDir,
}

impl Guest {
    #[track_caller]
    fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("v.sock");
        let devices = format!(r#"[{{"type": "vsock", "cid": 3, "path": {path:?}}}]"#);
        Self { shell: guest_with(&devices, &["vmw_vsock_virtio_transport"], &[]), dir }
    }

    /// Listens for connections to the host's `port`.
    fn listen(&self, port: u32) -> UnixListener {
        let path: PathBuf = self.dir.path().join(format!("v.sock_{port}"));
        UnixListener::bind(path).expect("a socket")
    }

    /// Connects to the guest's `port` by Firecracker's protocol.
    #[track_caller]
    fn connect(&self, port: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.dir.path().join("v.sock")).expect("the monitor listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is a time");
        writeln!(stream, "CONNECT {port}").expect("the monitor reads");
        let mut answer = String::new();
        // Unbuffered, since what follows the line comes from the guest.
        while !answer.ends_with('\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the guest accepts");
            answer.push(byte[0].into());
        }
        assert!(answer.starts_with("OK "), "{answer}");
        stream
    }

    /// Starts an echo server in the guest at `port`.
    #[track_caller]
    fn echo(&mut self, port: u32) {
        let said = self.shell.run(&format!("guest-agent echo vsock:{port} & sleep 1"));
        assert_eq!(said, "listening\n");
    }

    #[track_caller]
    fn end(mut self) {
        self.shell.reboot();
        assert!(!self.dir.path().join("v.sock").exists(), "the socket is gone with the monitor");
    }
}

/// Number of bytes sent through a connection. `VMM_VSOCK_BYTES` overrides it, because other hosts are much faster than the rig.
fn len() -> u64 {
    std::env::var("VMM_VSOCK_BYTES").map_or(4 << 20, |text| text.parse().expect("a number of bytes"))
}

/// Timeout for transferring [`len`] bytes.
fn patience() -> std::time::Duration {
    DEADLINE + std::time::Duration::from_secs(len() >> 20)
}

fn vsock_agents_talk_in_both_directions() {
    let mut guest = Guest::start();
    let len = len();
    // From the guest: short and long writes, short and long reads, then the end of one direction, and a response.
    let listener = guest.listen(52);
    let taking = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        let taken = guest_agent::take(&mut stream, 1).expect("the bytes that the guest sent");
        stream.write_all(b"thanks").expect("the guest still reads");
        taken
    });
    let said = guest.shell.run_within(&format!("guest-agent send vsock:2:52 1 {len}"), patience());
    assert_eq!(said, format!("sent {len}, then 6 came\n"));
    assert_eq!(taking.join().expect("it took all"), len);
    // To the guest and back, at the same time.
    guest.echo(7);
    let mut stream = guest.connect(7);
    let mut sender = stream.try_clone().expect("a descriptor");
    let sending = thread::spawn(move || {
        guest_agent::send(&mut sender, 2, len).expect("the guest reads");
        sender.shutdown(Shutdown::Write).expect("it is open");
    });
    stream.set_read_timeout(Some(patience())).expect("it is a time");
    assert_eq!(guest_agent::take(&mut stream, 2).expect("the echo"), len);
    sending.join().expect("all was sent");
    // Connections to ports at which nobody listens, in both directions.
    let said = guest.shell.run("guest-agent connect vsock:2:99");
    assert!(said.contains("Connection reset by peer") || said.contains("refused"), "{said}");
    let mut stream = UnixStream::connect(guest.dir.path().join("v.sock")).expect("the monitor listens");
    stream.write_all(b"CONNECT 99\n").expect("the monitor reads");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it is closed in order");
    assert_eq!(answer, "");
    guest.end();
}

fn vsock_a_thousand_connections_at_once() {
    let mut guest = Guest::start();
    let listener = guest.listen(52);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || std::io::copy(&mut &stream, &mut &stream))
                .expect("a thread");
        }
    });
    let said = guest.shell.run_within("ulimit -n 4096; guest-agent many vsock:2:52 1000", DEADLINE);
    assert_eq!(said, "1000 at once\n");
    guest.echo(7);
    let mut streams: Vec<UnixStream> = (0..100).map(|_| guest.connect(7)).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&index.to_le_bytes()).expect("the guest reads");
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; size_of::<usize>()];
        stream.read_exact(&mut back).expect("the echo");
        assert_eq!(back, index.to_le_bytes());
    }
    guest.end();
}

fn vsock_driver_that_leaves_and_comes_back_finds_its_device() {
    let mut guest = Guest::start();
    guest.echo(7);
    let mut stream = guest.connect(7);
    guest.shell.run(
        "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; echo virtio0 >unbind; echo virtio0 >bind; cd /",
    );
    // Open connections are closed, because the other end is gone.
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(rest.is_empty() && ended.is_ok_and(|len| len == 0), "{rest:?}");
    guest.echo(8);
    let mut stream = guest.connect(8);
    stream.write_all(b"again").expect("the guest reads");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("the echo");
    assert_eq!(&back, b"again");
    let listing = fs::read_dir(guest.dir.path()).expect("it is there").count();
    assert_eq!(listing, 1, "one socket, and nothing else is left");
    guest.end();
}
