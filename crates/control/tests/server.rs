//! Clients of any behaviour against the server, whose thread is confined.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, IoSlice, PipeReader, PipeWriter, Read, Write, pipe};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::sockopt::{set_socket_linger, socket_send_buffer_size};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vmm_config::{
    Answer, Command, CommandError, ErrorCode, Event, Reply, Request, Response, SnapshotCommand,
};
use vmm_control::{Client, ClientError, ControlSocket, Responder, Server};
use vmm_hostio::NamedSocket;
use vmm_sandbox::{ViolationAction, enable, report_violations};

const DEADLINE: Duration = Duration::from_secs(20);

struct Socket {
    server: Server,
    name: NamedSocket,
    path: PathBuf,
    _directory: TempDir,
}

impl Socket {
    fn new(execute: impl Fn(Request, Responder) + Send + 'static) -> Self {
        Self::with_files(move |request, _, responder| execute(request, responder))
    }

    fn with_files(execute: impl Fn(Request, Vec<OwnedFd>, Responder) + Send + 'static) -> Self {
        report_violations(|| ()).unwrap();
        enable(ViolationAction::Trap);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vm.sock");
        let name = NamedSocket::listen(&path).unwrap();
        let server = ControlSocket::at(&name).unwrap().serve(execute).unwrap();
        Self { server, name, path, _directory: directory }
    }

    /// A server for which each request is done at once.
    fn obliging() -> Self {
        Self::new(|request, responder| responder.respond(done(request.id)))
    }

    /// A server whose requests the test answers.
    fn slow() -> (Self, Receiver<(Request, Responder)>) {
        let (requests, received): (Sender<_>, _) = channel();
        let requests = Mutex::new(requests);
        (
            Self::new(move |request, responder| requests.lock().unwrap().send((request, responder)).unwrap()),
            received,
        )
    }

    /// The same, with the requests' files.
    fn slow_with_files() -> (Self, Receiver<(Request, Vec<OwnedFd>, Responder)>) {
        let (requests, received): (Sender<_>, _) = channel();
        let requests = Mutex::new(requests);
        let execute = move |request, files, responder| {
            requests.lock().unwrap().send((request, files, responder)).unwrap();
        };
        (Self::with_files(execute), received)
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn end(self) {
        let since = Instant::now();
        self.server.end(ended(), DEADLINE);
        assert!(since.elapsed() < DEADLINE, "it waits for a client that will read nothing more");
    }
}

fn done(id: u64) -> Response {
    Response { id, answer: Answer::Result(Reply::Done) }
}

fn ended() -> Event {
    Event::Ended { exit_code: 0, reason: "the test is over".to_owned() }
}

/// The next line of a stream.
fn line(stream: &UnixStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while { stream }.read(&mut byte).unwrap() == 1 && byte != [b'\n'] {
        line.push(byte[0] as char);
    }
    line
}

#[test]
fn socket_is_its_users_alone_and_gone_at_the_end() {
    let socket = Socket::obliging();
    let Socket { server, name, path, _directory } = socket;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // The caller decides where that waits for storage, and clients that are connected still get the last event.
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.execute(Command::Events).unwrap(), "done");
    drop(name);
    assert!(!path.exists());
    server.end(ended(), DEADLINE);
    assert_eq!(client.event().unwrap().unwrap().event, ended());
}

#[test]
fn each_client_gets_the_responses_to_its_own_requests_in_any_order() {
    let (socket, requests) = Socket::slow();
    let (first, second) = (socket.stream(), socket.stream());
    { &first }
        .write_all(b"{\"id\": 1, \"command\": \"pause\"}\n{\"id\": 2, \"command\": \"status\"}\n")
        .unwrap();
    let mut received: Vec<_> = (0..2).map(|_| requests.recv_timeout(DEADLINE).unwrap()).collect();
    { &second }.write_all(b"{\"id\": 1, \"command\": \"resume\"}\n").unwrap();
    received.push(requests.recv_timeout(DEADLINE).unwrap());
    let commands: Vec<_> = received.iter().map(|(request, _)| request.command.clone()).collect();
    assert_eq!(commands, [Command::Pause, Command::Status, Command::Resume]);
    for (request, responder) in received.into_iter().rev() {
        responder.respond(done(request.id));
    }
    assert_eq!([line(&first), line(&first)], [r#"{"id":2,"result":"done"}"#, r#"{"id":1,"result":"done"}"#]);
    assert_eq!(line(&second), r#"{"id":1,"result":"done"}"#);
    socket.end();
}

#[test]
fn request_that_nobody_answers_has_an_error() {
    let socket = Socket::new(|_, responder| drop(responder));
    let error = socket.client().execute(Command::Pause).unwrap_err();
    let expected = CommandError::new(ErrorCode::Ended, "the monitor has ended");
    assert!(matches!(&error, ClientError::Refused(error) if *error == expected), "{error:?}");
    socket.end();
}

#[test]
fn events_go_to_those_who_have_asked_and_the_last_comes_before_the_end() {
    let socket = Socket::obliging();
    let (mut client, mut other) = (socket.client(), socket.client());
    assert_eq!(client.execute(Command::Events).unwrap(), "done");
    assert_eq!(other.execute(Command::Pause).unwrap(), "done");
    let events = socket.server.events();
    let refused =
        Event::ConnectionRefused { id: "net0".to_owned(), destination: "tcp 192.0.2.7:80".to_owned() };
    [Event::Started, refused.clone()].into_iter().for_each(|event| events.tell(event));
    socket.end();
    let told: Vec<_> = std::iter::from_fn(|| client.event().unwrap()).map(|line| line.event).collect();
    assert_eq!(told, [Event::Started, refused, ended()]);
    assert_eq!(other.event().unwrap(), None);
}

/// The server reads no more from it, keeps little, and serves the others.
#[test]
fn client_that_reads_nothing_harms_nobody() {
    let socket = Socket::obliging();
    let flood = socket.stream();
    flood.set_nonblocking(true).unwrap();
    let request = "{\"id\": 1, \"command\": \"pause\"}\n".repeat(1000);
    let until = Instant::now() + DEADLINE;
    // Until for a second nothing was taken from it.
    let mut taken_at = Instant::now();
    while taken_at.elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < until, "all is taken, and kept");
        match { &flood }.write(request.as_bytes()) {
            Ok(1..) => taken_at = Instant::now(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let mut silent = socket.client();
    assert_eq!(silent.execute(Command::Events).unwrap(), "done");
    let events = socket.server.events();
    (0..100_000).for_each(|_| events.tell(Event::Paused));
    assert_eq!(socket.client().execute(Command::Status).unwrap(), "done");
    drop(flood);
    let (mut seen, mut lost, mut resumed) = (0, 0, 0);
    loop {
        // There is room again, at some time.
        events.tell(Event::Resumed);
        resumed += 1;
        match silent.event().unwrap().unwrap().event {
            Event::Paused => seen += 1,
            Event::Lost(count) => lost += count,
            _ => break,
        }
    }
    assert!((100_000..=100_000 + resumed).contains(&(seen + lost)), "{seen} were seen, {lost} lost");
    // What is on the way to it: in the mailbox (1,024 events), in the server's buffer (64 KiB) and in the socket's.
    let line_len = r#"{"event":"paused"}"#.len() + 1;
    let kept = 1024 + ((64 << 10) + socket_send_buffer_size(socket.stream()).unwrap()) / line_len;
    assert!(seen <= kept as u64, "so many are kept for a client that reads nothing: {seen}, {kept} expected");
    // It would be waited for.
    drop(silent);
    socket.end();
}

#[test]
fn lines_that_are_no_requests_are_refused_one_by_one() {
    let socket = Socket::obliging();
    let stream = socket.stream();
    { &stream }.write_all(b"GET / HTTP/1.1\r\n{\"id\": 3}\n{\"id\": 4, \"command\": \"pause\"}\n").unwrap();
    assert!(
        line(&stream).starts_with(r#"{"id":null,"error":{"code":"invalid_request","message":"not JSON: "#)
    );
    assert!(
        line(&stream)
            .starts_with(r#"{"id":3,"error":{"code":"invalid_request","message":"missing field `command`"#)
    );
    assert_eq!(line(&stream), r#"{"id":4,"result":"done"}"#);
    // One without an end ends the connection.
    { &stream }.write_all(&vec![b'['; 100_000]).unwrap_or_default();
    assert!(line(&stream).contains("a request has at most 16384 bytes"));
    // Reset, if the server hasn't read all.
    assert!(
        { &stream }
            .read(&mut [0])
            .map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |len| len == 0)
    );
    socket.end();
}

#[test]
fn half_a_request_is_none_and_a_client_that_has_said_all_gets_its_responses() {
    let (socket, requests) = Socket::slow();
    socket.stream().write_all(b"{\"id\": 1, \"command\": \"qu").unwrap();
    let stream = socket.stream();
    { &stream }.write_all(b"{\"id\": 2, \"command\": \"pause\"}\n{\"id\"").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (request, responder) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!(request.command, Command::Pause);
    responder.respond(done(request.id));
    let lines: Vec<_> = BufReader::new(&stream).lines().map(Result::unwrap).collect();
    assert_eq!(lines, [r#"{"id":2,"result":"done"}"#]);
    socket.end();
    assert!(requests.try_recv().is_err());
}

/// What it has asked for is done, whether or not it waits for the response, and the server doesn't spin until then.
#[test]
fn client_that_has_gone_has_its_requests_done_and_costs_nothing() {
    let ((to_test, requests), (open, gate)) = (channel(), channel());
    let socket = Socket::new(move |request, responder| {
        if request.command == Command::Reset {
            gate.recv().unwrap();
        }
        to_test.send((request, responder, rustix::thread::gettid())).unwrap();
    });
    // Has the server see the other only when it has gone.
    let holder = socket.stream();
    { &holder }.write_all(b"{\"id\": 99, \"command\": \"reset\"}\n").unwrap();
    let stream = socket.stream();
    // More than is read at once.
    { &stream }.write_all(&[b'\n'; 10_000]).unwrap();
    for id in 0..40 {
        { &stream }.write_all(format!("{{\"id\": {id}, \"command\": \"pause\"}}\n").as_bytes()).unwrap();
    }
    { &stream }.write_all(b"{\"id\": 40, \"command\": \"events\"}\n").unwrap();
    drop(stream);
    open.send(()).unwrap();
    assert_eq!(requests.recv_timeout(DEADLINE).unwrap().0.id, 99);
    let first: Vec<_> = (0..16).map(|_| requests.recv_timeout(DEADLINE).unwrap()).collect();
    let thread = first[0].2;
    assert_idle(thread, "it waits for its 16 requests");
    assert!(requests.try_recv().is_err(), "more than 16 are in progress");
    first.into_iter().for_each(|(request, responder, _)| responder.respond(done(request.id)));
    for id in 16..40 {
        let (request, responder, _) = requests.recv_timeout(DEADLINE).unwrap();
        assert_eq!(request.id, id);
        responder.respond(done(id));
    }
    assert_idle(thread, "it has asked for events");
    socket.end();
}

/// The thread uses less than a third of a processor.
#[track_caller]
fn assert_idle(thread: Pid, while_what: &str) {
    // In hundredths of a second: utime and stime, after the name.
    let used = || {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').map(str::to_owned).collect();
        fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(300));
    assert!(used() - before < 10, "the server is busy while a client has gone, and {while_what}");
}

/// Lines that have been received, and whose responses there was no room for, aren't forgotten when there is.
#[test]
fn client_that_reads_late_has_all_its_lines_answered() {
    let socket = Socket::obliging();
    let stream = socket.stream();
    // As much as is received at once. The responses are more than a socket takes.
    let count = 8000;
    { &stream }.write_all(&b"x\n".repeat(count)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut lines = BufReader::new(&stream).lines();
    assert!((0..count).all(|_| lines.next().unwrap().unwrap().contains("not JSON")));
    socket.end();
}

/// Whoever waits for something stays.
#[test]
fn thousand_idle_clients_make_room_for_another() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(4096), maximum }).unwrap();
    let socket = Socket::obliging();
    let mut first = socket.client();
    assert_eq!(first.execute(Command::Events).unwrap(), "done");
    let idle: Vec<_> = (0..1200).map(|_| socket.stream()).collect();
    assert_eq!(socket.client().execute(Command::Status).unwrap(), "done");
    // The oldest of them was disconnected, the newest wasn't.
    assert_eq!({ &idle[0] }.read(&mut [0]).unwrap(), 0);
    let newest = idle.last().unwrap();
    { newest }.write_all(b"{\"id\": 5, \"command\": \"pause\"}\n").unwrap();
    assert_eq!(line(newest), r#"{"id":5,"result":"done"}"#);
    socket.server.events().tell(Event::Paused);
    assert_eq!(first.event().unwrap().unwrap().event, Event::Paused);
    drop(idle);
    // Those who have asked for events and have gone take no room.
    for _ in 0..1100 {
        assert_eq!(socket.client().execute(Command::Events).unwrap(), "done");
    }
    assert_eq!(socket.client().execute(Command::Status).unwrap(), "done");
    socket.end();
}

const SNAPSHOT: Command = Command::Snapshot(SnapshotCommand { stop: false, disks: Vec::new() });
const SNAPSHOT_LINE: &[u8] = b"{\"id\": 1, \"command\": {\"snapshot\": {}}}\n";

/// Sends bytes, all at once, with files.
fn send_with(stream: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let message = SendAncillaryMessage::ScmRights(files);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(message));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Sends bytes with two files. The reader sees when nobody has them any more.
fn send_with_pipe(stream: &UnixStream, bytes: &[u8]) -> PipeReader {
    let (reader, writer) = pipe().unwrap();
    send_with(stream, bytes, &[writer.as_fd(), writer.as_fd()]);
    reader
}

fn is_closed(reader: &PipeReader, within: Duration) -> bool {
    let mut fds = [PollFd::new(reader, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[track_caller]
fn assert_closed(reader: &PipeReader) {
    assert!(is_closed(reader, DEADLINE), "the server keeps a file");
}

/// The code of a refusal, and its message.
fn refusal(error: ClientError) -> (ErrorCode, String) {
    match error {
        ClientError::Refused(CommandError { code, message, .. }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_arrive_with_their_request_in_its_order() {
    let (socket, requests) = Socket::slow_with_files();
    let mut client = socket.client();
    let ((mut of_state, state), (mut of_memory, memory)) = (pipe().unwrap(), pipe().unwrap());
    let client = std::thread::spawn(move || {
        let result = client.execute_with(SNAPSHOT, &[state.as_fd(), memory.as_fd()]);
        // Without files.
        (result, client.execute(SNAPSHOT))
    });
    let (request, files, responder) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!((request.command, files.len()), (SNAPSHOT, 2));
    assert!(files.iter().all(|file| fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC)));
    for (file, text) in files.into_iter().zip([b"state", b"memor"]) {
        PipeWriter::from(file).write_all(text).unwrap();
    }
    responder.respond(done(request.id));
    let (request, files, responder) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!((request.command, files.len()), (SNAPSHOT, 0));
    responder.respond(done(request.id));
    let (first, second) = client.join().unwrap();
    assert_eq!((first.unwrap(), second.unwrap()), ("done".into(), "done".into()));
    let read = [&mut of_state, &mut of_memory].map(|reader| {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(read, ["state", "memor"]);
    socket.end();
}

#[test]
fn files_of_half_a_line_are_those_of_its_request() {
    let (socket, requests) = Socket::slow_with_files();
    let stream = socket.stream();
    { &stream }.write_all(b"{\"id\": 7, \"command\": \"pause\"}\n{\"id\"").unwrap();
    let reader = send_with_pipe(&stream, b": 8, \"command\":");
    let (first, files, _first) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!((first.id, files.len()), (7, 0));
    { &stream }.write_all(b"{\"snapshot\": {}}}\n{\"id\": 9, \"command\": {\"snapshot\": {}}}\n").unwrap();
    let (second, files, _second) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!((second.id, files.len()), (8, 2));
    let (third, none, _third) = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!((third.id, none.len()), (9, 0));
    assert!(!is_closed(&reader, Duration::ZERO));
    drop(files);
    assert_closed(&reader);
    drop((_first, _second, _third));
    socket.end();
}

#[test]
fn files_that_nobody_needs_are_closed() {
    let socket = Socket::with_files(|request, files, responder| {
        responder.respond_and_close(done(request.id), files);
    });
    let stream = socket.stream();
    let of_pause = send_with_pipe(&stream, b"{\"id\": 1, \"command\": \"pause\"}\n");
    assert_eq!(line(&stream), r#"{"id":1,"result":"done"}"#);
    assert_closed(&of_pause);
    let of_no_request = send_with_pipe(&stream, b"snapshot\n");
    assert!(line(&stream).contains("not JSON"));
    assert_closed(&of_no_request);
    assert_closed(&send_with_pipe(&stream, b"\n"));
    let unused = send_with_pipe(&stream, SNAPSHOT_LINE);
    assert_eq!(line(&stream), r#"{"id":1,"result":"done"}"#);
    assert_closed(&unused);
    socket.end();
}

#[test]
fn request_with_too_many_files_is_refused_and_they_are_closed() {
    let socket = Socket::obliging();
    let mut client = socket.client();
    let (reader, writer) = pipe().unwrap();
    // The kernel passes at most 253.
    for count in [35, 36, 37, 253] {
        let error = client.execute_with(SNAPSHOT, &vec![writer.as_fd(); count]).unwrap_err();
        let message = "a request has at most 34 file descriptors, which come in one message".to_owned();
        assert_eq!(refusal(error), (ErrorCode::InvalidRequest, message));
    }
    drop(writer);
    assert_closed(&reader);
    assert_eq!(client.execute(Command::Status).unwrap(), "done");
    socket.end();
}

#[test]
fn files_of_a_client_that_leaves_are_closed() {
    let (socket, requests) = Socket::slow_with_files();
    let (gone, silent) = (socket.stream(), socket.stream());
    let of_gone = send_with_pipe(&gone, b"{\"id\": 1, ");
    let of_silent = send_with_pipe(&silent, b"{\"id\": 2, ");
    // After those, if they were kept.
    assert!(!is_closed(&of_silent, Duration::from_millis(100)));
    drop(gone);
    assert_closed(&of_gone);
    silent.shutdown(std::net::Shutdown::Write).unwrap();
    assert_closed(&of_silent);
    // Neither has a line that is too long any.
    let endless = socket.stream();
    let of_endless = send_with_pipe(&endless, b"x");
    { &endless }.write_all(&[b'x'; 16 << 10]).unwrap();
    assert_closed(&of_endless);
    socket.end();
    assert!(requests.try_recv().is_err());
}

/// Of all clients together only so many files are kept, however many there are.
#[test]
fn files_of_many_clients_are_refused_beyond_a_limit() {
    let (socket, requests) = Socket::slow_with_files();
    let half = |_| {
        let stream = socket.stream();
        let reader = send_with_pipe(&stream, &SNAPSHOT_LINE[..20]);
        (stream, reader)
    };
    let halves: Vec<_> = (0..40).map(half).collect();
    let are_closed = || halves.iter().filter(|(_, reader)| is_closed(reader, Duration::ZERO)).count();
    let until = Instant::now() + DEADLINE;
    while are_closed() < 24 {
        assert!(Instant::now() < until, "{} are closed", are_closed());
        std::thread::sleep(Duration::from_millis(1));
    }
    let busy = r#"{"id":1,"error":{"code":"busy","message":"16 requests with file descriptors are in progress; try again later"}}"#;
    let (refused, _) = halves.iter().find(|(_, reader)| is_closed(reader, Duration::ZERO)).unwrap();
    { refused }.write_all(&SNAPSHOT_LINE[20..]).unwrap();
    assert_eq!(line(refused), busy);
    // Those who send theirs at once don't need to wait for the others.
    let whole = |_| {
        let stream = socket.stream();
        send_with(&stream, SNAPSHOT_LINE, &[stream.as_fd(), stream.as_fd()]);
        (requests.recv_timeout(DEADLINE).unwrap(), stream)
    };
    let in_progress: Vec<_> = (0..16).map(whole).collect();
    assert_eq!(are_closed(), 24);
    let further = socket.stream();
    let of_further = send_with_pipe(&further, SNAPSHOT_LINE);
    assert_eq!(line(&further), busy);
    assert_closed(&of_further);
    for ((request, files, responder), stream) in in_progress {
        assert_eq!(files.len(), 2);
        // Those that the server has to close may still be counted when it responds.
        drop(files);
        responder.respond(done(request.id));
        assert_eq!(line(&stream), r#"{"id":1,"result":"done"}"#);
    }
    let (_, _stream) = whole(0);
    drop(halves);
    drop((further, _stream));
    socket.end();
}

/// A socket whose closing takes longer than the test: it lingers until the peer takes what was sent.
fn hanging() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    hanging.set_nonblocking(true).unwrap();
    while { &hanging }.write(&[0; 64 << 10]).is_ok() {}
    set_socket_linger(&hanging, Some(4 * DEADLINE)).unwrap();
    (hanging, peer)
}

#[test]
fn files_whose_closing_hangs_harm_nobody() {
    let socket = Socket::obliging();
    let since = Instant::now();
    let hang = || {
        let (hanging, peer) = hanging();
        let stream = socket.stream();
        // The server's descriptor must be the last one: who closes the last one waits.
        send_with(&stream, b"{\"id\": 1, ", &[hanging.as_fd()]);
        drop(hanging);
        { &stream }.write_all(b"\"command\": \"pause\"}\n").unwrap();
        assert_eq!(line(&stream), r#"{"id":1,"result":"done"}"#);
        peer
    };
    let peers: Vec<_> = (0..16).map(|_| hang()).collect();
    let (_reader, writer) = pipe().unwrap();
    let refused = |socket: &Socket| {
        let error = socket.client().execute_with(SNAPSHOT, &[writer.as_fd()]).unwrap_err();
        refusal(error).0
    };
    assert_eq!(refused(&socket), ErrorCode::StorageHangs);
    assert_eq!(socket.client().execute(Command::Status).unwrap(), "done");
    // They are reset, and close.
    drop(peers);
    while socket.client().execute_with(SNAPSHOT, &[writer.as_fd()]).is_err() {
        assert!(since.elapsed() < DEADLINE);
    }
    assert!(since.elapsed() < DEADLINE, "it waits for them");
    socket.end();
}
