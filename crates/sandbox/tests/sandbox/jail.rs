use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{env, thread};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, getgroups, getresgid, getresuid, setgroups};
use rustix::fs::readlinkat;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{
    DumpableBehavior, Signal, dumpable_behavior, getegid, geteuid, getgid, getuid,
    parent_process_death_signal, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, capabilities_secure_bits,
    capability_is_in_bounding_set, no_new_privs,
};
use vmm_sandbox::{Jail, JailError, JailNetwork, Wall, WallState};

use crate::child::{As, passes};
use crate::host::{errno, landlock_abi, permits_namespaces};
use crate::raw;

const CLOSED: Jail = Jail { network: JailNetwork::None, user: None };

/// Runs the test's child as the tester and as an ordinary user.
fn as_both(test: &str, body: fn()) {
    for user in [As::Tester, As::Ordinary] {
        passes(test, user, body);
    }
}

/// A listener on the loopback interface, and where it listens.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The wall called `name`.
fn wall<'a>(walls: &'a [Wall], name: &str) -> &'a Wall {
    walls.iter().find(|wall| wall.name == name).unwrap_or_else(|| panic!("{name} is in {walls:?}"))
}

/// Why the wall called `name` is missing, and the remedy.
fn missing(walls: &[Wall], name: &str) -> (String, String) {
    match &wall(walls, name).state {
        WallState::Missing { why, remedy } => (why.clone(), remedy.clone()),
        WallState::Up { detail } => panic!("{name} is up: {detail}"),
    }
}

fn has_no_privileges() {
    let sets = capabilities(None).unwrap();
    let none = CapabilitySet::empty();
    assert_eq!((sets.effective, sets.permitted, sets.inheritable), (none, none, none));
    assert!(no_new_privs().unwrap());
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let (users, groups) = (getresuid().unwrap(), getresgid().unwrap());
    assert_eq!((users.effective, users.saved), (users.real, users.real));
    assert_eq!((groups.effective, groups.saved), (groups.real, groups.real));
    let mount = mount(c"none", c"/", c"tmpfs", MountFlags::empty(), None);
    assert_eq!(errno(mount), Some(libc::EPERM));
}

pub(crate) fn has_an_empty_bounding_set() {
    let bits = (0..41)
        .filter(|bit| capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).unwrap());
    assert_eq!(bits.collect::<Vec<_>>(), []);
    // Root gets no capabilities by execve, and that can't be changed (capabilities(7)).
    let locked = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    assert!(capabilities_secure_bits().unwrap().contains(locked));
}

/// The root is one from which nothing can be reached, not even by the way that a forgotten old root would be.
fn has_an_empty_root() {
    for path in ["/etc/passwd", "/proc/self/status", "../etc/passwd", "/../../etc/passwd"] {
        assert_eq!(errno(File::open(path)), Some(libc::ENOENT), "{path}");
    }
    assert_eq!(fs::read_dir("/").unwrap().count(), 0);
    assert_eq!(fs::read_dir("/..").unwrap().count(), 0);
    assert_eq!(env::current_dir().unwrap(), Path::new("/"));
    assert_eq!(fs::metadata("/").unwrap().mode() & 0o7777, 0o555);
    assert_eq!(errno(File::create("/new")), Some(libc::EROFS));
}

fn has_the_hosts_root() {
    File::open("/etc/passwd").unwrap();
    assert!(Path::new("/proc/self/task").is_dir());
}

fn refusing(call: libc::c_long, step: &str) {
    let permitted = permits_namespaces();
    env::set_current_dir("/usr").unwrap();
    raw::refuse(call, libc::EPERM);
    let walls = CLOSED.enter().unwrap();
    let (why, _) = missing(&walls, "namespaces");
    assert!(why.starts_with(step) || !permitted, "{why}");
    assert_eq!(env::current_dir().unwrap(), Path::new("/usr"));
    has_no_privileges();
    has_the_hosts_root();
}

#[test]
fn root_in_an_initramfs_is_covered() {
    as_both("jail::root_in_an_initramfs_is_covered", || {
        let permitted = permits_namespaces();
        // As the kernel does if the root can't be detached.
        raw::refuse(libc::SYS_pivot_root, libc::EINVAL);
        let walls = CLOSED.enter().unwrap();
        assert_eq!(wall(&walls, "namespaces").is_up(), permitted, "{walls:?}");
        has_no_privileges();
        if permitted {
            has_an_empty_root();
        }
    });
}

/// Puts this process into a user namespace with one user and one group, which have these numbers there.
fn map_in_a_user_namespace(uid: u32, gid: u32) {
    let (outer_uid, outer_gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1")).unwrap();
}

#[test]
fn jail_has_an_empty_root_no_network_and_no_privileges() {
    as_both("jail::jail_has_an_empty_root_no_network_and_no_privileges", || {
        let permitted = permits_namespaces();
        let (_listener, address) = listener();
        TcpStream::connect(address).unwrap();
        let inherited = File::open("/etc/passwd").unwrap();
        let user = if geteuid().is_root() { 65534 } else { geteuid().as_raw() };

        let walls = CLOSED.enter().unwrap();

        has_no_privileges();
        assert!(wall(&walls, "privileges").is_up());
        assert_eq!((getuid().as_raw(), geteuid().as_raw()), (user, user));
        assert_eq!(wall(&walls, "namespaces").is_up(), permitted, "{walls:?}");
        assert!(std::io::read_to_string(inherited).unwrap().contains("root"));
        if permitted {
            has_an_empty_bounding_set();
            has_an_empty_root();
            assert_eq!(errno(TcpStream::connect(address)), Some(libc::ENETUNREACH));
        } else {
            has_the_hosts_root();
            TcpStream::connect(address).unwrap();
        }
    });
}

/// The host's mounts are shared where systemd is the first process: what is mounted in another namespace would appear there.
#[test]
fn host_doesnt_get_the_jails_mounts() {
    passes("jail::host_doesnt_get_the_jails_mounts", As::Tester, || {
        if !permits_namespaces() {
            return;
        }
        if !geteuid().is_root() {
            map_in_a_user_namespace(0, 0);
        }
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::SHARED).unwrap();
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let end = raw::in_fork(|| {
            assert!(wall(&CLOSED.enter().unwrap(), "namespaces").is_up());
        });
        assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    });
}

#[test]
fn jail_with_the_hosts_network_reaches_it() {
    as_both("jail::jail_with_the_hosts_network_reaches_it", || {
        let (_listener, address) = listener();
        let walls = Jail { network: JailNetwork::Host, user: None }.enter().unwrap();
        TcpStream::connect(address).unwrap();
        assert!(!wall(&walls, "namespaces").to_string().contains("network"), "{walls:?}");
    });
}

#[test]
fn every_namespace_of_the_wall_is_another_one() {
    as_both("jail::every_namespace_of_the_wall_is_another_one", || {
        const NAMES: [&str; 6] = ["user", "mnt", "net", "ipc", "uts", "cgroup"];
        let permitted = permits_namespaces();
        let is_root = geteuid().is_root();
        let numbers = |process: &File| {
            // NS_GET_* would need a descriptor of each: the links' names have the numbers.
            NAMES.map(|name| readlinkat(process, format!("ns/{name}"), Vec::new()).unwrap())
        };
        let process = File::open("/proc/self").unwrap();
        let before = numbers(&process);
        CLOSED.enter().unwrap();
        let after = numbers(&process);
        let changed = [!is_root, true, true, true, true, true].map(|changes| changes && permitted);
        assert_eq!(std::array::from_fn(|index| before[index] != after[index]), changed, "{NAMES:?}");
    });
}

#[test]
fn root_becomes_the_user_that_was_asked_for() {
    passes("jail::root_becomes_the_user_that_was_asked_for", As::Tester, || {
        let was_root = geteuid().is_root();
        if was_root {
            setgroups(&[Gid::from_raw(7)]).unwrap();
        }
        let entered = Jail { network: JailNetwork::None, user: Some((1234, 5678)) }.enter();
        if was_root {
            entered.unwrap();
            assert_eq!((getuid().as_raw(), geteuid().as_raw()), (1234, 1234));
            assert_eq!((getgid().as_raw(), getegid().as_raw()), (5678, 5678));
            assert_eq!(getgroups().unwrap(), []);
            has_no_privileges();
        } else {
            assert!(matches!(entered, Err(JailError::NotRoot { uid: 1234, gid: 5678 })));
        }
    });
}

#[test]
fn ordinary_user_who_should_become_another_one_is_refused_unchanged() {
    passes("jail::ordinary_user_who_should_become_another_one_is_refused_unchanged", As::Ordinary, || {
        let entered = Jail { network: JailNetwork::None, user: Some((0, 0)) }.enter();
        assert!(matches!(entered, Err(JailError::NotRoot { uid: 0, gid: 0 })), "{entered:?}");
        assert!(!no_new_privs().unwrap());
        has_the_hosts_root();
    });
}

#[test]
fn process_with_two_threads_is_refused_unchanged() {
    as_both("jail::process_with_two_threads_is_refused_unchanged", || {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || ended.recv());
        let entered = CLOSED.enter();
        assert!(matches!(entered, Err(JailError::Threads(2))), "{entered:?}");
        assert!(!no_new_privs().unwrap());
        has_the_hosts_root();
        drop(end);
        assert!(other.join().unwrap().is_err());
    });
}

#[test]
fn container_that_forbids_unshare_is_named_and_the_rest_is_done() {
    as_both("jail::container_that_forbids_unshare_is_named_and_the_rest_is_done", || {
        raw::refuse(libc::SYS_unshare, libc::EPERM);
        let walls = CLOSED.enter().unwrap();
        let (why, remedy) = missing(&walls, "namespaces");
        assert!(why.starts_with("new namespaces (unshare): EPERM"), "{why}");
        assert!(remedy.contains("container"), "{remedy}");
        has_no_privileges();
        has_the_hosts_root();
    });
}

#[test]
fn limit_of_namespaces_is_named_and_the_rest_is_done() {
    passes("jail::limit_of_namespaces_is_named_and_the_rest_is_done", As::Ordinary, || {
        // A namespace has limits of its own for those in it, which its creator may set.
        let permitted = permits_namespaces();
        if permitted {
            map_in_a_user_namespace(geteuid().as_raw(), getegid().as_raw());
            fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        }
        let walls = CLOSED.enter().unwrap();
        let (why, remedy) = missing(&walls, "namespaces");
        if permitted {
            assert!(why.starts_with("new namespaces (unshare): ENOSPC"), "{why}");
            assert!(remedy.contains("sysctl -w user.max_user_namespaces"), "{remedy}");
        }
        has_no_privileges();
        has_the_hosts_root();
    });
}

#[test]
fn maps_that_cant_be_written_leave_the_user_namespace_as_it_was() {
    passes("jail::maps_that_cant_be_written_leave_the_user_namespace_as_it_was", As::Ordinary, || {
        let permitted = permits_namespaces();
        // The files in /proc/self belong to root then. AppArmor refuses to write them, too.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
        let before = fs::read_link("/proc/self/ns/user").unwrap();
        let walls = CLOSED.enter().unwrap();
        let (why, _) = missing(&walls, "namespaces");
        if permitted {
            assert!(why.starts_with("writing /proc/self/setgroups of a new user namespace: EACCES"), "{why}");
        }
        assert_eq!(fs::read_link("/proc/self/ns/user").unwrap(), before);
        has_no_privileges();
        has_the_hosts_root();
    });
}

#[test]
fn mount_that_is_refused_leaves_the_root_and_the_directory() {
    as_both("jail::mount_that_is_refused_leaves_the_root_and_the_directory", || {
        refusing(libc::SYS_mount, "making mounts private: EPERM");
    });
}

#[test]
fn pivot_root_that_is_refused_leaves_the_root_and_the_directory() {
    as_both("jail::pivot_root_that_is_refused_leaves_the_root_and_the_directory", || {
        refusing(libc::SYS_pivot_root, "changing the root (pivot_root): EPERM");
    });
}

#[test]
fn root_that_can_be_nobody_else_is_reported_and_has_no_capabilities() {
    passes("jail::root_that_can_be_nobody_else_is_reported_and_has_no_capabilities", As::Ordinary, || {
        let permitted = permits_namespaces();
        if !permitted {
            assert!(!wall(&CLOSED.enter().unwrap(), "namespaces").is_up());
            return;
        }
        map_in_a_user_namespace(0, 0);
        assert!(geteuid().is_root());
        let walls = CLOSED.enter().unwrap();
        let (why, _) = missing(&walls, "user");
        assert!(why.starts_with("this root can't become user 65534, group 65534: EPERM"), "{why}");
        assert!(wall(&walls, "namespaces").is_up(), "{walls:?}");
        has_no_privileges();
        has_an_empty_root();
    });
}

#[test]
fn probe_finds_what_the_host_permits_and_changes_nothing() {
    as_both("jail::probe_finds_what_the_host_permits_and_changes_nothing", || {
        let walls = vmm_sandbox::probe().unwrap();
        assert_eq!(wall(&walls, "namespaces").is_up(), permits_namespaces(), "{walls:?}");
        let landlock = walls.iter().any(|wall| wall.is_up() && wall.name == "Landlock, files");
        assert_eq!(landlock, landlock_abi() > 0, "{walls:?}");
        assert!(wall(&walls, "system calls").is_up(), "{walls:?}");
        assert!(!no_new_privs().unwrap());
        assert!(!vmm_sandbox::is_enabled());
        has_the_hosts_root();
    });
}

/// Whoever has started the monitor may want it to end with them.
#[test]
fn jail_keeps_the_signal_of_the_parents_death() {
    as_both("jail::jail_keeps_the_signal_of_the_parents_death", || {
        set_parent_process_death_signal(Some(Signal::USR1)).unwrap();
        CLOSED.enter().unwrap();
        assert_eq!(parent_process_death_signal().unwrap(), Some(Signal::USR1));
    });
}
