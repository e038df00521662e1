//! The jail: namespaces, an empty root, no privileges.

use std::time::Duration;
use std::{fs, io, thread};

use nix::errno::Errno;
use rustix::process::{getgid, getuid};

use crate::namespaces::{Refusal, Step, empty_root, unshare_all};
use crate::privileges::{ParentDeath, become_user, give_up, lock_out};
use crate::report::Wall;

/// The user and group of processes that own nothing, on every distribution.
const NOBODY: (u32, u32) = (65534, 65534);

/// What remains of the host for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jail {
    /// The network for sockets that are opened later.
    pub network: JailNetwork,
    /// The user and the group that a process of root becomes; nobody's (65534) by default. An ordinary user stays the same.
    pub user: Option<(u32, u32)>,
}

/// The network for sockets that are opened in the jail. Those opened before, and TAPs, keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JailNetwork {
    /// The host's.
    Host,
    /// None: a new network namespace, in which even the loopback interface is down.
    None,
}

/// Why a process isn't in a jail at all. A refused namespace isn't among the reasons; that is in the returned walls.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Namespaces and capabilities belong to threads.
    #[error("the process has {0} threads, and a jail is entered with one")]
    Threads(usize),
    /// The number of threads is unknown.
    #[error("can't count the threads in /proc/self/task")]
    Proc(#[source] io::Error),
    /// Only root can become another user.
    #[error("only root can become user {uid} and group {gid}; leave them out, or run as root")]
    NotRoot {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
    },
    /// Root can't become the user that was asked for.
    #[error("can't become user {uid} and group {gid}")]
    User {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
        /// What setgroups, setresgid or setresuid returned.
        source: io::Error,
    },
    /// Capabilities or other privileges can't be given up.
    #[error("can't give up privileges")]
    Privileges(#[source] io::Error),
    /// The root has changed, and the old one is still there below it. The process must end.
    #[error("can't detach the old root")]
    OldRoot(#[source] io::Error),
}

impl Jail {
    /// Puts this process into the jail, for good. It keeps what it has opened.
    ///
    /// Returns the walls: what the host refuses is missing, and everything else is done nevertheless. If namespaces are refused, the
    /// root is the one from before.
    ///
    /// In this order: namespaces, empty root, bounding set and secure bits, user, capabilities, no_new_privs, not dumpable. Landlock
    /// comes afterwards, since it refuses mounts, and then threads and their filters.
    ///
    /// # Errors
    /// The process has several threads, even after 50 ms, or isn't root and should become another user: nothing has changed. Or something failed that
    /// the kernel refuses to none who may try: the process should end.
    pub fn enter(self) -> Result<Vec<Wall>, JailError> {
        has_one_thread()?;
        let is_root = rustix::process::geteuid().is_root();
        if let (false, Some((uid, gid))) = (is_root, self.user) {
            return Err(JailError::NotRoot { uid, gid });
        }
        let parent = ParentDeath::take();
        let namespaces = self.enter_namespaces(is_root)?;
        lock_out().map_err(JailError::Privileges)?;
        let user = if is_root { self.leave_root()? } else { None };
        give_up().map_err(JailError::Privileges)?;
        parent.restore().map_err(JailError::Privileges)?;
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let detail =
            format!("user {uid}, group {gid}, no capabilities, no new privileges, neither traced nor dumped");
        Ok([Some(namespaces), user, Some(Wall::up("privileges", detail))].into_iter().flatten().collect())
    }

    fn enter_namespaces(self, is_root: bool) -> Result<Wall, JailError> {
        let network = self.network == JailNetwork::None;
        match unshare_all(is_root, network).and_then(|()| empty_root()) {
            Ok(()) => {
                let user = if is_root { "" } else { "user, " };
                let network = if network { ", network" } else { "" };
                let detail = format!("an empty root; {user}mount, ipc, uts, cgroup{network} of its own");
                Ok(Wall::up(NAMESPACES, detail))
            }
            Err(Refusal { step: Step::OldRoot, errno }) => Err(JailError::OldRoot(errno.into())),
            Err(refusal) => Ok(Wall::missing(NAMESPACES, refusal.to_string(), remedy(&refusal))),
        }
    }

    /// The wall that is missing if root stays root, which only happens to a root that can't be anyone else.
    fn leave_root(self) -> Result<Option<Wall>, JailError> {
        let (uid, gid) = self.user.unwrap_or(NOBODY);
        match become_user(uid, gid) {
            Ok(()) => Ok(None),
            // In a container with a single user, or without CAP_SETUID.
            Err(errno @ (Errno::EINVAL | Errno::EPERM)) if self.user.is_none() => {
                let why = format!("this root can't become user {uid}, group {gid}: {errno}");
                let remedy = "run it as an ordinary user, or in a container that has this user and CAP_SETUID and CAP_SETGID";
                Ok(Some(Wall::missing("user", why, remedy)))
            }
            Err(errno) => Err(JailError::User { uid, gid, source: errno.into() }),
        }
    }
}

/// Checks that the calling thread is the only one. One that was joined may still be there: the kernel wakes the joiner before the
/// thread has left the process.
fn has_one_thread() -> Result<(), JailError> {
    const ATTEMPTS: u32 = 50;
    for attempt in 1.. {
        let threads = fs::read_dir("/proc/self/task").map_err(JailError::Proc)?.count();
        match threads {
            1 => break,
            _ if attempt == ATTEMPTS => return Err(JailError::Threads(threads)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(())
}

const NAMESPACES: &str = "namespaces";
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
const DEBIAN: &str = "/proc/sys/kernel/unprivileged_userns_clone";

/// What can be changed about a refusal.
fn remedy(refusal: &Refusal) -> String {
    let is_set = |path, value| fs::read_to_string(path).is_ok_and(|text: String| text.trim() == value);
    remedy_for(refusal, is_set(APPARMOR, "1"), is_set(DEBIAN, "0"))
}

fn remedy_for(refusal: &Refusal, apparmor_restricts: bool, debian_forbids: bool) -> String {
    let text = match (refusal.errno, refusal.step) {
        (Errno::ENOSPC | Errno::EUSERS, _) => {
            "a limit of namespaces is reached: as root, sysctl -w user.max_user_namespaces=10000 (and likewise user.max_mnt_namespaces, \
             max_net_namespaces, max_ipc_namespaces, max_uts_namespaces, max_cgroup_namespaces)"
        }
        (Errno::EINVAL | Errno::ENOSYS, Step::Unshare) => {
            "the kernel needs CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS and CONFIG_CGROUPS"
        }
        (Errno::ENOMEM | Errno::EAGAIN, Step::Fork) => "raise the limit of the user's processes (ulimit -u)",
        (Errno::EPERM | Errno::EACCES, _) if apparmor_restricts => {
            "AppArmor keeps unprivileged programs from namespaces unless they have a profile: install the one of the package in \
             /etc/apparmor.d, or as root, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        }
        (Errno::EPERM, Step::Unshare) if debian_forbids => {
            "as root, sysctl -w kernel.unprivileged_userns_clone=1"
        }
        _ => {
            "in a chroot, start it as root; in a container, use a seccomp profile and a security module's profile that permit unshare, \
             mount and pivot_root, or let the container be the jail"
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy_of(step: Step, errno: Errno, apparmor: bool, debian: bool) -> String {
        remedy_for(&Refusal { step, errno }, apparmor, debian)
    }

    #[test]
    fn remedy_is_what_the_host_lacks() {
        let ubuntu = remedy_of(Step::Map("uid_map"), Errno::EPERM, true, false);
        assert!(ubuntu.contains("apparmor_restrict_unprivileged_userns=0"), "{ubuntu}");
        let debian = remedy_of(Step::Unshare, Errno::EPERM, false, true);
        assert!(debian.contains("kernel.unprivileged_userns_clone=1"), "{debian}");
        let limit = remedy_of(Step::Unshare, Errno::ENOSPC, true, true);
        assert!(limit.contains("user.max_user_namespaces"), "{limit}");
        let kernel = remedy_of(Step::Unshare, Errno::EINVAL, false, false);
        assert!(kernel.contains("CONFIG_USER_NS"), "{kernel}");
        let container = remedy_of(Step::Mount("mounting a tmpfs"), Errno::EPERM, false, false);
        assert!(container.contains("container"), "{container}");
        let chroot = remedy_of(Step::Unshare, Errno::EPERM, false, false);
        assert!(chroot.starts_with("in a chroot, start it as root"), "{chroot}");
    }
}
