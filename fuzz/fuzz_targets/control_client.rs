//! A client of a control socket that sends arbitrary bytes. The server goes on serving another.
#![no_main]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use libfuzzer_sys::fuzz_target;
use vmm_config::{Answer, Command, Reply, Request, Response};
use vmm_control::{Client, ControlSocket, Responder};
use vmm_hostio::NamedSocket;

struct Bench {
    path: PathBuf,
    _name: NamedSocket,
    other: Mutex<Client>,
}

/// The server, and a client that never leaves.
fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("vmm-fuzz-{}.sock", std::process::id()));
        let answer = |request: Request, _: Vec<OwnedFd>, responder: Responder| {
            responder.respond(Response { id: request.id, answer: Answer::Result(Reply::Done) });
        };
        let name = NamedSocket::listen(&path).expect("a directory for sockets");
        ControlSocket::at(&name).expect("a descriptor").serve(answer).expect("a thread");
        let other = Mutex::new(Client::connect(&path).expect("a server"));
        Bench { path, other, _name: name }
    })
}

fuzz_target!(|input: (Vec<Vec<u8>>, bool)| {
    let (pieces, reads) = input;
    let bench = bench();
    let mut client = UnixStream::connect(&bench.path).expect("a server");
    for piece in pieces {
        // It fails when the server has disconnected the client.
        let _ = client.write_all(&piece);
    }
    if reads {
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut said = String::new();
        let _ = client.read_to_string(&mut said);
        assert!(said.lines().all(|line| line.starts_with("{\"id\":")), "{said}");
    }
    let other = &mut *bench.other.lock().expect("no panic while it is held");
    assert_eq!(other.execute(Command::Status).expect("an answer"), "done");
});
