//! `ctl SOCKET snapshot DIR`, with a monitor that writes the snapshot of format 1 in tests/fixtures.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use driver::DEADLINE;
use nix::sys::signal::Signal;
use vmm_config::{Answer, Command, CommandError, ErrorCode, Reply, Request, Response, SnapshotCommand};
use vmm_control::{ControlSocket, Responder};
use vmm_hostio::NamedSocket;
use vmm_snapshot::SnapshotFiles;

use crate::bench::{Bench, DONE, HOST_CANT, USAGE, complaint};

/// The machine doesn't do it.
const REFUSED: i32 = 1;

type Received = (Request, Vec<OwnedFd>, Responder);

/// A bench with the socket vm.sock, and what arrives there.
fn monitor() -> (Bench, NamedSocket, Receiver<Received>) {
    let bench = Bench::new();
    fs::remove_file(bench.path("kernel")).unwrap();
    let name = NamedSocket::listen(&bench.path("vm.sock")).unwrap();
    let (requests, received) = channel();
    let requests = Mutex::new(requests);
    let socket = ControlSocket::at(&name).unwrap();
    socket
        .serve(move |request, files, responder| {
            let _ = requests.lock().unwrap().send((request, files, responder));
        })
        .unwrap();
    (bench, name, received)
}

/// Writes the files, as far as they are those of a new snapshot, and returns the response.
fn write((request, files, _): &Received, stop: bool) -> Response {
    assert_eq!(request.command, Command::Snapshot(SnapshotCommand { stop, disks: Vec::new() }));
    let files: Vec<File> = files.iter().map(|file| file.try_clone().unwrap().into()).collect();
    let [state, memory] = <[File; 2]>::try_from(files).unwrap();
    let files = SnapshotFiles::of(state, memory).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/snapshots/format-1");
    for (file, name) in [(&files.state, "state"), (&files.memory, "memory")] {
        file.write_all_at(&fs::read(golden.join(name)).unwrap(), 0).unwrap();
    }
    Response { id: request.id, answer: Answer::Result(Reply::Done) }
}

/// The directory with a temporary name.
fn temporary(bench: &Bench) -> Option<String> {
    bench.names().into_iter().find(|name| name.starts_with(".vmm-snapshot-"))
}

#[test]
fn ctl_snapshot_is_complete_and_says_what_is_in_it() {
    let (bench, _name, received) = monitor();
    let mut ctl = bench.launch(&["ctl", "vm.sock", "snapshot", "vm.snap"]).start();
    let request = received.recv_timeout(DEADLINE).unwrap();
    assert!(temporary(&bench).is_some() && !bench.path("vm.snap").exists());
    let response = write(&request, false);
    request.2.respond(response);
    ctl.expect_code(DONE, DEADLINE);
    let printed = String::from_utf8(ctl.stdout()).unwrap();
    assert!(printed.starts_with("vm.snap: 16 KiB of memory ("), "{printed}");
    assert!(printed.ends_with(" stored), 3 sections in 1356 bytes of state\n"), "{printed}");
    assert_eq!(bench.names(), ["vm.snap", "vm.sock"]);
    vmm_snapshot::verify(&bench.path("vm.snap")).unwrap();
}

#[test]
fn ctl_snapshot_that_the_monitor_refuses_leaves_nothing() {
    let (bench, _name, received) = monitor();
    let refuse = |args: &[&str], code| {
        let mut ctl = bench.launch(args).start();
        let (request, files, responder) = received.recv_timeout(DEADLINE).unwrap();
        let error = CommandError::new(code, "the disk d can't be saved");
        responder.respond_and_close(Response { id: request.id, answer: Answer::Error(error) }, files);
        ctl.expect_code(REFUSED, DEADLINE);
        assert_eq!(ctl.stderr(), "error: the disk d can't be saved\n");
        assert_eq!(bench.names(), ["vm.sock"]);
    };
    refuse(&["ctl", "vm.sock", "snapshot", "vm.snap"], ErrorCode::NotSaveable);
    refuse(&["ctl", "vm.sock", "snapshot", "vm.snap", "--stop"], ErrorCode::SnapshotFailed);
}

/// It isn't asked for either.
#[test]
fn ctl_snapshot_at_a_name_that_exists_is_a_usage_error() {
    let (bench, _name, received) = monitor();
    bench.dir("vm.snap");
    let message = "vm.snap: exists already; name a new directory";
    assert_eq!(bench.run(&["ctl", "vm.sock", "snapshot", "vm.snap"]), complaint(USAGE, message));
    assert_eq!(bench.names(), ["vm.snap", "vm.sock"]);
    assert!(received.try_recv().is_err());
}

#[test]
fn ctl_snapshot_that_is_not_complete_is_not_published() {
    let (bench, _name, received) = monitor();
    let mut ctl = bench.launch(&["ctl", "vm.sock", "snapshot", "vm.snap"]).start();
    let (request, _files, responder) = received.recv_timeout(DEADLINE).unwrap();
    responder.respond(Response { id: request.id, answer: Answer::Result(Reply::Done) });
    ctl.expect_code(HOST_CANT, DEADLINE);
    let said = "error: state: is not the state of a snapshot: it doesn't begin with \"VMMSTATE\"\n";
    assert_eq!(ctl.stderr(), said);
    assert_eq!(bench.names(), ["vm.sock"]);
}

/// The guest has ended: what was written is all that is left of it.
#[test]
fn ctl_snapshot_of_a_stopped_machine_stays_if_it_can_not_get_its_name() {
    let (bench, _name, received) = monitor();
    let mut ctl = bench.launch(&["ctl", "vm.sock", "snapshot", "vm.snap", "--stop"]).start();
    let request = received.recv_timeout(DEADLINE).unwrap();
    let response = write(&request, true);
    bench.dir("vm.snap");
    request.2.respond(response);
    ctl.expect_code(HOST_CANT, DEADLINE);
    let kept = temporary(&bench).unwrap();
    // Its path is relative to the directory above the snapshot's.
    let said = format!(
        "error: vm.snap: exists already; name a new directory; the guest has ended, and its snapshot is in ./{kept}\n"
    );
    assert_eq!(ctl.stderr(), said);
    vmm_snapshot::verify(&bench.path(&kept)).unwrap();
}

#[test]
fn ctl_snapshot_that_is_interrupted_is_removed() {
    let (bench, _name, received) = monitor();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut ctl = bench.launch(&["ctl", "vm.sock", "snapshot", "vm.snap"]).start();
        let _request = received.recv_timeout(DEADLINE).unwrap();
        ctl.signal(signal);
        assert_eq!(ctl.expect_exit(DEADLINE).signal(), Some(signal as i32));
        assert_eq!(bench.names(), ["vm.sock"]);
    }
}

/// The monitor may complete it and end.
#[test]
fn ctl_snapshot_of_a_machine_that_stops_stays_if_it_is_interrupted() {
    let (bench, _name, received) = monitor();
    let mut ctl = bench.launch(&["ctl", "vm.sock", "snapshot", "vm.snap", "--stop"]).start();
    let _request = received.recv_timeout(DEADLINE).unwrap();
    ctl.signal(Signal::SIGINT);
    assert_eq!(ctl.expect_exit(DEADLINE).signal(), Some(Signal::SIGINT as i32));
    let kept = temporary(&bench).unwrap();
    let said = format!("interrupted: the monitor may still complete the snapshot in ./{kept}, and end\n");
    assert_eq!(ctl.stderr(), said);
}
