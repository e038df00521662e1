//! What a monitor and its keeper do. A panic is a failure.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use vmm_hostio::path_keeper::{Contents, Grant, KeeperProcess, delegate_to, fork_keeper, remove_if_same};
use vmm_hostio::{Engine, IoMethod, NamedSocket, connect_unix};
use vmm_memory::{Access, FileMemory};

use crate::SCENARIO;

pub(crate) const ALL: &[(&str, fn())] = &[
    ("monitor_elsewhere_connects_through_its_keeper", connects),
    ("monitor_elsewhere_removes_its_socket_and_its_file", removes),
    ("monitor_gets_only_what_is_granted", gets_only_what_is_granted),
    ("monitor_with_a_keeper_names_its_sockets_itself", names_sockets),
    ("monitor_without_a_keeper_acts_itself", acts_itself),
    ("keeper_has_only_its_socket_and_a_session_and_blocks_signals", has_only_its_socket),
    ("keeper_has_neither_mapped_files_nor_rings", has_no_mappings),
    ("keeper_is_confined_with_nothing_open_before_it_serves", is_confined),
    ("keeper_that_can_not_be_confined_is_an_error_and_no_child", can_not_be_confined),
    ("keeper_whose_confinement_panics_is_an_error_and_no_child", confinement_panics),
    ("keeper_of_a_process_with_threads_is_refused", has_threads),
    ("keeper_ends_with_the_monitors_socket", ends_with_the_socket),
    ("keeper_ends_with_a_monitor_that_is_killed", ends_with_the_monitor),
    ("keeper_survives_signals", survives_signals),
    ("keeper_that_is_killed_fails_requests_and_nothing_else", is_killed),
    ("keeper_that_is_stopped_fails_requests_after_three_seconds", is_stopped),
    ("keeper_keeps_nothing_of_ten_thousand_requests", keeps_nothing),
    ("keeper_without_standard_streams_serves", streams_closed),
];

/// Monitors that a scenario starts.
pub(crate) const OTHERS: &[(&str, fn())] = &[("killed", be_killed)];

/// A directory of its own, which becomes the current one. Removed at the end of the scenario.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    env::set_current_dir(directory.path()).unwrap();
    directory
}

fn grant() -> Grant {
    Grant { connect_prefixes: vec!["vm_".into()], remove: vec!["vm".into(), "log".into()] }
}

fn keeper() -> KeeperProcess {
    fork_keeper(&grant(), || Ok(())).unwrap()
}

/// Delegates to the keeper and leaves the directory to which its relative paths refer, as a confined monitor.
fn delegate(keeper: KeeperProcess) -> Pid {
    delegate_to(keeper.socket);
    env::set_current_dir("/").unwrap();
    Pid::from_raw(keeper.pid)
}

fn proc_file(pid: i32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

/// A field of proc_pid_status(5).
fn status_field(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(proc_file(pid, "status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// The files that the keeper has open, by descriptor.
fn open_files(pid: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(proc_file(pid, "fd")).unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut files: Vec<_> =
        entries.map(|path| (number(&path), fs::read_link(&path).unwrap().display().to_string())).collect();
    files.sort();
    files
}

#[track_caller]
fn assert_no_child() {
    assert_eq!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Err(nix::Error::ECHILD));
}

fn connects() {
    let directory = directory();
    let listener = UnixListener::bind("vm_5").unwrap();
    delegate(keeper());
    let _connection = connect_unix(Path::new("vm_5")).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap();
    assert_eq!(connect_unix(Path::new("vm_6")).err(), Some(Errno::NOENT));
    drop(directory);
}

fn removes() {
    let directory = directory();
    let path = |name| directory.path().join(name);
    // Those of a monitor are opened before it is confined.
    let socket = NamedSocket::listen(Path::new("vm")).unwrap();
    fs::write("log", "").unwrap();
    let log = fs::metadata("log").unwrap();
    delegate(keeper());
    fs::write(path("log"), "x").unwrap();
    let remove = || remove_if_same(Path::new("log"), log.dev(), log.ino(), Contents::Empty);
    assert_eq!(remove(), Err(Errno::NOTEMPTY));
    fs::write(path("log"), "").unwrap();
    assert_eq!(remove(), Ok(()));
    assert!(path("vm").exists() && !path("log").exists());
    drop(socket);
    assert!(!path("vm").exists());
}

fn gets_only_what_is_granted() {
    let directory = directory();
    let path = |name| directory.path().join(name);
    let _listener = UnixListener::bind("other").unwrap();
    fs::write("file", "").unwrap();
    delegate(keeper());
    // Absolute paths, which this process could use itself.
    assert_eq!(connect_unix(&path("other")).err(), Some(Errno::ACCESS));
    let found = fs::metadata(path("file")).unwrap();
    let removed = remove_if_same(&path("file"), found.dev(), found.ino(), Contents::Any);
    assert_eq!(removed, Err(Errno::ACCESS));
    assert!(path("file").exists());
}

/// Also where a dead socket must be recognized, which the keeper would refuse.
fn names_sockets() {
    let directory = directory();
    let dead = directory.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    delegate(keeper());
    let _socket = NamedSocket::listen(&dead).unwrap();
    UnixStream::connect(&dead).unwrap();
}

fn acts_itself() {
    let directory = directory();
    let _keeper = keeper();
    let _listener = UnixListener::bind("other").unwrap();
    connect_unix(Path::new("other")).unwrap();
    fs::write("file", "").unwrap();
    let found = fs::metadata("file").unwrap();
    remove_if_same(Path::new("file"), found.dev(), found.ino(), Contents::Any).unwrap();
    assert!(!directory.path().join("file").exists());
}

fn has_only_its_socket() {
    let (_reader, _writer) = io::pipe().unwrap();
    let keeper = keeper();
    assert_eq!(status_field(keeper.pid, "Name"), "path-keeper");
    let pid = Pid::from_raw(keeper.pid);
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    let blocked = u64::from_str_radix(&status_field(keeper.pid, "SigBlk"), 16).unwrap();
    // Of 1 to 31 all but SIGKILL (9) and SIGSTOP (19), which can't be blocked. The C library keeps some beyond.
    assert_eq!(blocked & 0x7fff_ffff, 0x7ffb_feff);
    let files = open_files(keeper.pid);
    let [stdin, stdout, stderr, socket] = &files[..] else { panic!("{files:?}") };
    let null = |fd| (fd, "/dev/null".to_owned());
    assert_eq!([stdin, stdout, stderr], [&null(0), &null(1), &null(2)]);
    assert!(socket.1.starts_with("socket:"), "{socket:?}");
}

fn has_no_mappings() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let mapping = FileMemory::new(file.reopen().unwrap(), 4096, 0, Access::ReadWrite).unwrap();
    // Has a ring, if the host allows any, and starts no thread before its first request.
    let files = [Arc::new(file.reopen().unwrap())];
    let engine: Engine<()> = Engine::new(IoMethod::Auto, 1, "test", &files).unwrap();
    let keeper = keeper();
    let mapped = |pid| {
        let maps = fs::read_to_string(proc_file(pid, "maps")).unwrap();
        [file.path().to_str().unwrap(), "[io_uring]"].map(|name| maps.contains(name))
    };
    assert!(mapped(getpid().as_raw())[0]);
    assert_eq!(mapped(keeper.pid), [false, false]);
    drop((mapping, engine));
}

fn is_confined() {
    let (mut reader, writer) = io::pipe().unwrap();
    let number = writer.as_raw_fd();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let keeper = fork_keeper(&grant(), move || {
        let is_open = Path::new("/proc/self/fd").join(number.to_string()).exists();
        fs::write(path, format!("{} {is_open}", getpid()))
    });
    let keeper = keeper.unwrap();
    assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("{} false", keeper.pid));
    drop(writer);
    assert_eq!(io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
}

fn can_not_be_confined() {
    let refused = fork_keeper(&grant(), || Err(io::Error::other("no Landlock")));
    assert_eq!(refused.unwrap_err().to_string(), "the path keeper can't be set up: no Landlock");
    let long = "x".repeat(10_000);
    let refused = fork_keeper(&grant(), || Err(io::Error::other(long))).unwrap_err();
    assert_eq!(refused.to_string().len(), 512);
    assert_no_child();
}

fn confinement_panics() {
    let refused = fork_keeper(&grant(), || panic!("a defect")).unwrap_err();
    let expected = "the path keeper can't be set up: its confinement panicked";
    assert_eq!(refused.to_string(), expected);
    assert_no_child();
}

fn has_threads() {
    let (sender, receiver) = channel::<()>();
    let thread = thread::spawn(move || receiver.recv().is_err());
    let refused = fork_keeper(&grant(), || Ok(())).unwrap_err();
    assert_eq!(refused.to_string(), "the process has 2 threads and must have one");
    assert_no_child();
    drop(sender);
    assert!(thread.join().unwrap());
}

fn ends_with_the_socket() {
    let KeeperProcess { socket, pid } = keeper();
    let copy: OwnedFd = socket.try_clone().unwrap();
    let pid = Pid::from_raw(pid);
    drop(socket);
    assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
    drop(copy);
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
}

fn be_killed() {
    println!("{}", keeper().pid);
    kill(getpid(), Signal::SIGKILL).unwrap();
}

fn ends_with_the_monitor() {
    let mut monitor = Command::new(env::current_exe().unwrap());
    let said = monitor.env(SCENARIO, "killed").output().unwrap().stdout;
    let pid: i32 = str::from_utf8(&said).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(errno) => assert_eq!(errno, Errno::SRCH, "it has ended"),
        Ok(keeper) => {
            let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
            let mut ended = [PollFd::new(&keeper, PollFlags::IN)];
            assert_eq!(poll(&mut ended, Some(&minute)), Ok(1), "it has not ended after a minute");
        }
    }
}

fn survives_signals() {
    let _directory = directory();
    let pid = delegate(keeper());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGABRT] {
        kill(pid, signal).unwrap();
    }
    assert_eq!(connect_unix(Path::new("vm_5")).err(), Some(Errno::NOENT));
}

fn is_killed() {
    let directory = directory();
    let socket = NamedSocket::listen(Path::new("vm")).unwrap();
    let pid = delegate(keeper());
    kill(pid, Signal::SIGKILL).unwrap();
    // Waits for its end without reaping it, as in a monitor.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags).unwrap();
    assert_eq!(connect_unix(Path::new("vm_5")).err(), Some(Errno::PIPE));
    assert_eq!(remove_if_same(Path::new("log"), 1, 2, Contents::Any), Err(Errno::PIPE));
    drop(socket);
    assert!(directory.path().join("vm").exists());
}

fn is_stopped() {
    let _directory = directory();
    let pid = delegate(keeper());
    kill(pid, Signal::SIGSTOP).unwrap();
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    let start = Instant::now();
    assert_eq!(connect_unix(Path::new("vm_5")).err(), Some(Errno::TIMEDOUT));
    assert!((Duration::from_secs(3)..Duration::from_secs(30)).contains(&start.elapsed()));
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(connect_unix(Path::new("vm_5")).err(), Some(Errno::NOENT));
}

fn keeps_nothing() {
    let _directory = directory();
    let listener = UnixListener::bind("vm_5").unwrap();
    let pid = delegate(keeper());
    let before = open_files(pid.as_raw());
    let resident = || {
        let text = status_field(pid.as_raw(), "VmRSS");
        text.trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let mut first = None;
    for _ in 0..10_000 {
        connect_unix(Path::new("vm_5")).unwrap();
        listener.accept().unwrap();
        first.get_or_insert_with(resident);
    }
    assert_eq!(open_files(pid.as_raw()), before);
    assert!(resident() <= first.unwrap() + 256, "{first:?} kB, then {}", resident());
}

/// Of a process that has started without the runtime, which opens missing streams.
fn streams_closed() {
    let _directory = directory();
    let streams = [0, 1, 2];
    streams.iter().for_each(|stream| nix::unistd::close(*stream).unwrap());
    let pid = delegate(keeper());
    let files = open_files(pid.as_raw());
    assert_eq!(files.iter().filter(|(_, file)| file == "/dev/null").count(), 3);
    assert_eq!(files.len(), 4);
    assert_eq!(connect_unix(Path::new("vm_5")).err(), Some(Errno::NOENT));
}
