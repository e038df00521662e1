use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, thread};

use vmm_sandbox::landlock::{Access, Ports, restrict};
use vmm_sandbox::{Wall, WallState};

use crate::child::{As, passes};
use crate::host::{errno, landlock_abi};
use crate::raw;

/// The first ABI that limits TCP ports, and the first that limits signals and abstract sockets.
const TCP: u64 = 4;
const SCOPES: u64 = 6;
const RESOLVE_UNIX: u64 = 9;

fn nothing() -> Access {
    Access {
        tcp_connect: Ports::Only(Vec::new()),
        tcp_bind: Ports::Only(Vec::new()),
        remove_in: Vec::new(),
        connect_in: Vec::new(),
    }
}

/// The errno of what a kernel with `since` or later refuses.
fn from(since: u64, refused: i32) -> Option<i32> {
    (landlock_abi() >= since).then_some(refused)
}

fn as_both(test: &str, body: fn()) {
    for user in [As::Tester, As::Ordinary] {
        passes(test, user, body);
    }
}

/// An empty directory, which the parent removes.
fn directory(name: &str) -> PathBuf {
    let path = env::temp_dir().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn walls_are_those_that_the_kernels_abi_has() {
    as_both("landlock::walls_are_those_that_the_kernels_abi_has", || {
        let abi = landlock_abi();
        let walls = restrict(nothing());
        let up = walls.iter().map(|wall| (wall.name.as_str(), wall.is_up())).collect::<Vec<_>>();
        if abi == 0 {
            assert_eq!(up, [("Landlock", false)]);
        } else {
            let scopes = ("Landlock, signals and abstract sockets", abi >= SCOPES);
            assert_eq!(up, [("Landlock, files", true), ("Landlock, TCP ports", abi >= TCP), scopes]);
            assert!(walls[0].to_string().ends_with(&format!("(ABI {abi})")), "{walls:?}");
        }
    });
}

#[test]
fn path_cant_be_opened_or_created_and_an_open_file_stays_open() {
    as_both("landlock::path_cant_be_opened_or_created_and_an_open_file_stays_open", || {
        let directory = directory("opened");
        let open = File::open("/etc/passwd").unwrap();
        fs::write(directory.join("old"), "old").unwrap();

        let _ = restrict(nothing());

        let refused = from(1, libc::EACCES);
        assert_eq!(errno(File::open("/etc/passwd")), refused);
        assert_eq!(errno(fs::read_dir("/")), refused);
        assert_eq!(errno(File::create(directory.join("new"))), refused);
        assert_eq!(errno(fs::create_dir(directory.join("directory"))), refused);
        assert_eq!(errno(UnixListener::bind(directory.join("socket"))), refused);
        assert_eq!(errno(fs::rename(directory.join("old"), directory.join("renamed"))), refused);
        assert!(std::io::read_to_string(open).unwrap().contains("root"));
    });
}

#[test]
fn file_is_removed_only_in_the_directories_for_it() {
    as_both("landlock::file_is_removed_only_in_the_directories_for_it", || {
        let (yes, no) = (directory("yes"), directory("no"));
        let files = [yes.join("file"), no.join("file")];
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        let remove_in = vec![OwnedFd::from(File::open(&yes).unwrap())];

        let _ = restrict(Access { remove_in, ..nothing() });

        assert_eq!(errno(File::open(&files[0])), from(1, libc::EACCES));
        assert_eq!(errno(fs::remove_file(&files[1])), from(1, libc::EACCES));
        fs::remove_file(&files[0]).unwrap();
    });
}

#[test]
fn socket_is_connected_only_in_the_directories_for_it() {
    as_both("landlock::socket_is_connected_only_in_the_directories_for_it", || {
        let (yes, no) = (directory("connected"), directory("unconnected"));
        let sockets = [yes.join("socket"), no.join("socket")];
        // They listen before the restriction, so they are outside of it.
        let listeners = sockets.each_ref().map(|socket| UnixListener::bind(socket).unwrap());
        let connect_in = vec![OwnedFd::from(File::open(&yes).unwrap())];

        let _ = restrict(Access { connect_in, ..nothing() });

        UnixStream::connect(&sockets[0]).unwrap();
        assert_eq!(errno(UnixStream::connect(&sockets[1])), from(RESOLVE_UNIX, libc::EACCES));
        drop(listeners);
    });
}

#[test]
fn tcp_port_is_connected_to_only_if_it_is_listed() {
    as_both("landlock::tcp_port_is_connected_to_only_if_it_is_listed", || {
        let [(_first, listed), (_second, other)] = [listener(), listener()];
        let _ = restrict(Access { tcp_connect: Ports::Only(vec![listed.port()]), ..nothing() });
        TcpStream::connect(listed).unwrap();
        assert_eq!(errno(TcpStream::connect(other)), from(TCP, libc::EACCES));
    });
}

#[test]
fn tcp_port_is_bound_only_if_it_is_listed() {
    as_both("landlock::tcp_port_is_bound_only_if_it_is_listed", || {
        let [(first, listed), (second, other)] = [listener(), listener()];
        drop((first, second));
        let _ = restrict(Access { tcp_bind: Ports::Only(vec![listed.port()]), ..nothing() });
        TcpListener::bind(listed).unwrap();
        assert_eq!(errno(TcpListener::bind(other)), from(TCP, libc::EACCES));
    });
}

#[test]
fn tcp_ports_of_any_number_are_used_if_there_is_no_limit() {
    as_both("landlock::tcp_ports_of_any_number_are_used_if_there_is_no_limit", || {
        let walls = restrict(Access { tcp_connect: Ports::Any, tcp_bind: Ports::Any, ..nothing() });
        let (_listener, address) = listener();
        TcpStream::connect(address).unwrap();
        assert!(walls.iter().all(|wall| wall.name != "Landlock, TCP ports"), "{walls:?}");
    });
}

#[test]
fn other_process_gets_no_signal_and_the_threads_of_this_one_do() {
    as_both("landlock::other_process_gets_no_signal_and_the_threads_of_this_one_do", || {
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = u64::from(other.id());
        let this = u64::from(std::process::id());
        raw::call(libc::SYS_kill, [pid, 0, 0, 0]).unwrap();

        let _ = restrict(nothing());

        assert_eq!(errno(raw::call(libc::SYS_kill, [pid, 0, 0, 0])), from(SCOPES, libc::EPERM));
        let thread = thread::spawn(move || raw::call(libc::SYS_tgkill, [this, this, 0, 0]).is_ok());
        assert!(thread.join().unwrap());
        // It ends with its input.
        other.wait().unwrap();
    });
}

#[test]
fn abstract_socket_of_another_process_isnt_connected_to() {
    as_both("landlock::abstract_socket_of_another_process_isnt_connected_to", || {
        let address = format!("vmm-sandbox-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(address).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        UnixStream::connect_addr(&address).unwrap();

        let _ = restrict(nothing());

        assert_eq!(errno(UnixStream::connect_addr(&address)), from(SCOPES, libc::EPERM));
    });
}

#[test]
fn kernel_without_landlock_is_named_and_nothing_is_restricted() {
    as_both("landlock::kernel_without_landlock_is_named_and_nothing_is_restricted", || {
        raw::refuse(libc::SYS_landlock_create_ruleset, libc::ENOSYS);
        let walls = restrict(nothing());
        let [Wall { state: WallState::Missing { why, remedy }, .. }] = &*walls else { panic!("{walls:?}") };
        assert!(why.contains("doesn't have it") && remedy.contains("5.13"), "{walls:?}");
        File::open("/etc/passwd").unwrap();
    });
}

#[test]
fn landlock_that_isnt_enabled_is_named() {
    passes("landlock::landlock_that_isnt_enabled_is_named", As::Tester, || {
        raw::refuse(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP);
        let walls = restrict(nothing());
        let [Wall { state: WallState::Missing { remedy, .. }, .. }] = &*walls else { panic!("{walls:?}") };
        assert!(remedy.contains("lsm="), "{walls:?}");
    });
}

#[test]
fn restriction_that_fails_is_reported() {
    passes("landlock::restriction_that_fails_is_reported", As::Tester, || {
        raw::refuse(libc::SYS_landlock_restrict_self, libc::E2BIG);
        let walls = restrict(nothing());
        assert!(walls.iter().all(|wall| !wall.is_up()), "{walls:?}");
        File::open("/etc/passwd").unwrap();
    });
}
