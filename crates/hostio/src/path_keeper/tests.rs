//! A client and a server in one process.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, bind,
    listen, sendmsg, socket_with, socketpair,
};

use super::client::Client;
use super::protocol::{REQUEST_MAX, Request, decode_outcome};
use super::*;
use crate::{NamedSocket, is_monitors};

/// Long enough for a busy host; no request of these tests takes as long.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// A keeper on a thread, and a directory. It may connect to `vm_5` and the like, and remove `vm` and `log`.
struct Setup {
    client: Option<Client>,
    server: JoinHandle<()>,
    directory: tempfile::TempDir,
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let grant = Grant { connect_prefixes: vec![path("vm_")], remove: vec![path("vm"), path("log")] };
        let (ours, theirs) = pair();
        let server = thread::spawn(move || serve(theirs, &grant));
        Self { client: Some(Client::new(ours, LONG)), server, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    fn connect(&self, name: &str) -> Result<UnixStream, Errno> {
        self.client().connect(&self.path(name)).map(UnixStream::from)
    }

    /// Removes `name`, if it is the inode of `file`.
    fn remove(&self, name: &str, file: &str, contents: Contents) -> Result<(), Errno> {
        let of = fs::symlink_metadata(self.path(file)).unwrap();
        self.client().remove(&self.path(name), of.dev(), of.ino(), contents)
    }

    /// Sends a message as a monitor that was taken over might.
    fn send_raw(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [std::mem::MaybeUninit::uninit(); cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let parts = [io::IoSlice::new(message)];
        sendmsg(&self.client().socket, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// The outcome of a message with a socket for its reply.
    fn outcome_of(&self, message: &[u8]) -> Result<(), Errno> {
        let (ours, theirs) = pair();
        self.send_raw(message, &[theirs.as_fd()]);
        drop(theirs);
        let mut reply = Vec::new();
        File::from(ours).read_to_end(&mut reply).unwrap();
        decode_outcome(&reply)
    }

    /// The keeper's thread has ended without a panic.
    fn end(mut self) {
        self.client = None;
        self.server.join().unwrap();
    }
}

fn write_and_read(stream: &mut UnixStream, listener: &UnixListener) {
    let mut accepted = listener.accept().unwrap().0;
    accepted.write_all(b"hello").unwrap();
    let mut read = [0; 5];
    stream.set_nonblocking(false).unwrap();
    stream.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");
}

#[test]
fn connection_that_is_granted_reaches_its_program_and_does_not_block() {
    let setup = Setup::new();
    let listener = UnixListener::bind(setup.path("vm_5")).unwrap();
    let mut connection = setup.connect("vm_5").unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    write_and_read(&mut connection, &listener);
    setup.end();
}

#[test]
fn connection_that_is_not_granted_is_refused_and_not_even_tried() {
    let setup = Setup::new();
    fs::create_dir(setup.path("vm_6")).unwrap();
    let names = ["vm_", "vm_x", "vm_5x", "vm", "other", "vm_6/../vm_7"].map(|name| {
        let listener = UnixListener::bind(setup.path(name)).unwrap();
        listener.set_nonblocking(true).unwrap();
        (name, listener)
    });
    let outcomes = names.each_ref().map(|(name, _)| setup.connect(name).err());
    assert_eq!(outcomes, [Some(Errno::ACCESS); 6]);
    let accepted = names.each_ref().map(|(_, listener)| listener.accept().unwrap_err().kind());
    assert_eq!(accepted, [io::ErrorKind::WouldBlock; 6]);
    setup.end();
}

#[test]
fn connection_fails_as_without_a_keeper() {
    let setup = Setup::new();
    assert_eq!(setup.connect("vm_5").err(), Some(Errno::NOENT));
    // It never listened: a listener's descriptor could survive for a moment in a process that another test
    // starts.
    let dead = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&dead, &rustix::net::SocketAddrUnix::new(setup.path("vm_6")).unwrap()).unwrap();
    assert_eq!(setup.connect("vm_6").err(), Some(Errno::CONNREFUSED));
    listen(&dead, 0).unwrap();
    let _first = setup.connect("vm_6").unwrap();
    assert_eq!(setup.connect("vm_6").err(), Some(Errno::AGAIN));
    setup.end();
}

#[test]
fn connection_follows_a_link_as_without_a_keeper() {
    let setup = Setup::new();
    let listener = UnixListener::bind(setup.path("program")).unwrap();
    symlink("program", setup.path("vm_5")).unwrap();
    write_and_read(&mut connect_directly(&setup.path("vm_5")).unwrap().into(), &listener);
    write_and_read(&mut setup.connect("vm_5").unwrap(), &listener);
    setup.end();
}

#[test]
fn connection_to_a_monitors_own_socket_is_recognized() {
    let setup = Setup::new();
    let _other = NamedSocket::listen(&setup.path("vm_1")).unwrap();
    assert!(is_monitors(&setup.connect("vm_1").unwrap()));
    setup.end();
}

#[test]
fn name_that_is_granted_is_removed_if_it_is_the_same_inode() {
    let setup = Setup::new();
    let _listener = UnixListener::bind(setup.path("vm")).unwrap();
    fs::write(setup.path("log"), "text").unwrap();
    assert_eq!(setup.remove("vm", "log", Contents::Any), Err(Errno::STALE));
    assert!(setup.path("vm").exists());
    assert_eq!(setup.remove("vm", "vm", Contents::Any), Ok(()));
    assert!(!setup.path("vm").exists());
    assert_eq!(setup.remove("vm", "log", Contents::Any), Err(Errno::NOENT));
    let log = fs::metadata(setup.path("log")).unwrap();
    let of = |dev, ino| setup.client().remove(&setup.path("log"), dev, ino, Contents::Any);
    assert_eq!(of(log.dev() + 1, log.ino()), Err(Errno::STALE));
    assert_eq!(of(log.dev(), log.ino() + 1), Err(Errno::STALE));
    assert!(setup.path("log").exists());
    setup.end();
}

#[test]
fn name_that_is_not_granted_is_not_removed() {
    let setup = Setup::new();
    let names = ["vm_5", "other", "log2"];
    names.iter().for_each(|name| fs::write(setup.path(name), "").unwrap());
    assert_eq!(names.map(|name| setup.remove(name, name, Contents::Any)), [Err(Errno::ACCESS); 3]);
    assert!(names.iter().all(|name| setup.path(name).exists()));
    setup.end();
}

#[test]
fn file_with_contents_is_not_removed_if_it_must_be_empty() {
    let setup = Setup::new();
    fs::write(setup.path("log"), "x").unwrap();
    assert_eq!(setup.remove("log", "log", Contents::Empty), Err(Errno::NOTEMPTY));
    assert!(setup.path("log").exists());
    fs::write(setup.path("log"), "").unwrap();
    assert_eq!(setup.remove("log", "log", Contents::Empty), Ok(()));
    assert!(!setup.path("log").exists());
    setup.end();
}

#[test]
fn link_at_a_granted_name_does_not_remove_what_it_names() {
    let setup = Setup::new();
    fs::write(setup.path("precious"), "").unwrap();
    symlink("precious", setup.path("log")).unwrap();
    assert_eq!(setup.remove("log", "precious", Contents::Any), Err(Errno::STALE));
    // Nor is the link removed: monitors make none.
    assert_eq!(setup.remove("log", "log", Contents::Any), Err(Errno::NOTEMPTY));
    assert!(setup.path("precious").exists());
    setup.end();
}

/// As a monitor might that was taken over: its log is the evidence.
#[test]
fn file_with_contents_is_not_removed_whatever_is_asked() {
    let setup = Setup::new();
    fs::write(setup.path("log"), "evidence").unwrap();
    assert_eq!(setup.remove("log", "log", Contents::Any), Err(Errno::NOTEMPTY));
    assert!(setup.path("log").exists());
    fs::write(setup.path("log"), "").unwrap();
    assert_eq!(setup.remove("log", "log", Contents::Any), Ok(()));
    setup.end();
}

#[test]
fn message_that_is_no_request_is_refused_and_the_next_is_served() {
    let setup = Setup::new();
    let granted = Request::Connect { path: &setup.path("vm_5") }.encode().unwrap();
    let _listener = UnixListener::bind(setup.path("vm_5")).unwrap();
    assert_eq!(setup.outcome_of(&[0]), Err(Errno::INVAL));
    assert_eq!(setup.outcome_of(&[255; 100]), Err(Errno::INVAL));
    assert_eq!(setup.outcome_of(&[2; 16]), Err(Errno::INVAL));
    assert_eq!(setup.outcome_of(&[1]), Err(Errno::ACCESS));
    assert_eq!(setup.outcome_of(&[&granted[..], b"\0"].concat()), Err(Errno::ACCESS));
    assert_eq!(setup.outcome_of(&[1; REQUEST_MAX]), Err(Errno::ACCESS));
    assert_eq!(setup.outcome_of(&granted), Ok(()));
    setup.end();
}

/// Cut at the end of the buffer, it would be a request that isn't granted.
#[test]
fn message_longer_than_any_request_is_refused() {
    let setup = Setup::new();
    assert_eq!(setup.outcome_of(&[1; REQUEST_MAX + 1]), Err(Errno::INVAL));
    assert_eq!(setup.outcome_of(&[1; 100_000]), Err(Errno::INVAL));
    setup.end();
}

#[test]
fn descriptors_beyond_the_first_are_closed() {
    let setup = Setup::new();
    for count in [2, 3, 16] {
        let (mut reader, writer) = io::pipe().unwrap();
        let (ours, theirs) = pair();
        let mut descriptors = vec![writer.as_fd(); count];
        descriptors[0] = theirs.as_fd();
        setup.send_raw(&[0], &descriptors);
        drop((writer, theirs));
        let mut reply = Vec::new();
        File::from(ours).read_to_end(&mut reply).unwrap();
        assert_eq!(decode_outcome(&reply), Err(Errno::INVAL));
        // Ends only when all copies are closed.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
    setup.end();
}

#[test]
fn descriptor_that_takes_no_reply_is_closed_and_the_next_request_is_served() {
    let setup = Setup::new();
    let _listener = UnixListener::bind(setup.path("vm_5")).unwrap();
    let granted = Request::Connect { path: &setup.path("vm_5") }.encode().unwrap();
    let file = tempfile::tempfile().unwrap();
    setup.send_raw(&granted, &[file.as_fd()]);
    setup.send_raw(&granted, &[setup.client().socket.as_fd()]);
    let (full, _unread) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while (&full).write(&[0; 4096]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    setup.send_raw(&granted, &[full.as_fd()]);
    let (closed, other) = pair();
    drop(other);
    setup.send_raw(&granted, &[closed.as_fd()]);
    assert!(setup.connect("vm_5").is_ok());
    setup.end();
}

#[test]
fn request_without_a_socket_for_its_reply_is_ignored() {
    let setup = Setup::new();
    fs::write(setup.path("log"), "").unwrap();
    let of = fs::metadata(setup.path("log")).unwrap();
    let path = setup.path("log");
    let request = Request::Remove { path: &path, device: of.dev(), inode: of.ino(), contents: Contents::Any };
    rustix::net::send(&setup.client().socket, &request.encode().unwrap(), SendFlags::empty()).unwrap();
    // Requests are served in their order.
    assert_eq!(setup.outcome_of(&[0]), Err(Errno::INVAL));
    assert!(path.exists());
    setup.end();
}

#[test]
fn requests_of_many_threads_are_answered_each_to_its_own() {
    let setup = Setup::new();
    let listeners = [1, 2, 3, 4, 5, 6, 7, 8].map(|port| {
        let listener = UnixListener::bind(setup.path(&format!("vm_{port}"))).unwrap();
        thread::spawn(move || {
            for _ in 0..100 {
                listener.accept().unwrap().0.write_all(&[port]).unwrap();
            }
        })
    });
    thread::scope(|scope| {
        for port in 1..=8 {
            let setup = &setup;
            scope.spawn(move || {
                for _ in 0..100 {
                    let mut connection = setup.connect(&format!("vm_{port}")).unwrap();
                    connection.set_nonblocking(false).unwrap();
                    let mut said = [0];
                    connection.read_exact(&mut said).unwrap();
                    assert_eq!(said, [port]);
                }
            });
        }
    });
    listeners.into_iter().for_each(|listener| listener.join().unwrap());
    setup.end();
}

#[test]
fn keeper_that_has_ended_is_an_error_at_once() {
    let (ours, theirs) = pair();
    let client = Client::new(ours, LONG);
    drop(theirs);
    assert_eq!(client.connect(Path::new("vm_5")).err(), Some(Errno::PIPE));
    assert_eq!(client.remove(Path::new("vm"), 1, 2, Contents::Any), Err(Errno::PIPE));
}

#[test]
fn keeper_that_ends_before_it_answers_is_an_error_at_once() {
    let (ours, theirs) = pair();
    let client = Client::new(ours, LONG);
    let asking = thread::spawn(move || client.connect(Path::new("vm_5")).err());
    // The request has arrived, and is lost with the socket.
    let mut arrived = [rustix::event::PollFd::new(&theirs, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut arrived, None).unwrap();
    drop(theirs);
    assert_eq!(asking.join().unwrap(), Some(Errno::PIPE));
}

#[test]
fn keeper_that_does_not_answer_is_waited_for_until_the_limit() {
    let (ours, _theirs) = pair();
    let client = Client::new(ours, SHORT);
    let start = Instant::now();
    assert_eq!(client.connect(Path::new("vm_5")).err(), Some(Errno::TIMEDOUT));
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
}

/// EAGAIN would mean that a program's backlog is full.
#[test]
fn requests_that_nobody_reads_time_out_when_they_fill_the_queue() {
    let (ours, _theirs) = pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let client = Client::new(ours, Duration::from_millis(1));
    let outcomes: Vec<_> = (0..100).map(|_| client.connect(Path::new("vm_5")).err()).collect();
    assert_eq!(outcomes, vec![Some(Errno::TIMEDOUT); 100]);
    assert_eq!(rustix::net::send(&client.socket, b"x", SendFlags::DONTWAIT), Err(Errno::AGAIN));
}

#[test]
fn reply_that_is_none_is_an_error() {
    let (ours, theirs) = pair();
    let client = Client::new(ours, LONG);
    let asking = thread::spawn(move || {
        let path = Path::new("vm_5");
        [client.connect(path).err(), client.connect(path).err(), client.connect(path).err()]
    });
    // Success without a connection, an impossible error, and half of an error.
    for reply in [&0i32.to_ne_bytes()[..], &i32::MIN.to_ne_bytes(), &[1, 0]] {
        let mut buffer = [0; REQUEST_MAX];
        let received = message::receive(&theirs, &mut buffer, rustix::net::RecvFlags::empty()).unwrap();
        message::send(&received.descriptor.unwrap(), reply, None).unwrap();
    }
    assert_eq!(asking.join().unwrap(), [Some(Errno::PROTO); 3]);
}
