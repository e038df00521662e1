//! Clients of any behaviour against the server, whose thread is confined.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vmm_config::{Answer, Command, CommandError, ErrorCode, Event, Reply, Request, Response};
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
    assert!(lost > 90_000, "so many are kept for a client that reads nothing: {seen}");
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
