//! Namespaces of this process's own, and an empty root.

use std::fmt;
use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, mount_remount, unmount,
};
use rustix::process::{chdir, chroot, fchdir, getegid, geteuid, pivot_root};

use crate::child::in_child;

/// Where the new root is mounted for a moment. It exists, since /proc was read before.
const PLACE: &str = "/proc";
/// Nothing in it is ever executed, a device, or set-uid.
const ROOT_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Room for nothing but the root directory.
const ROOT_OPTIONS: &std::ffi::CStr = c"size=4k,nr_inodes=1,mode=0555";

/// What the host has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A child process, to try the others.
    Fork,
    Unshare,
    /// Writing a file in /proc/self.
    Map(&'static str),
    /// A mount or a change to one.
    Mount(&'static str),
    PivotRoot,
    /// Detaching the old root, when the new one is in place.
    OldRoot,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Fork => write!(f, "a child process to try namespaces in"),
            Step::Unshare => write!(f, "new namespaces (unshare)"),
            Step::Map(file) => write!(f, "writing /proc/self/{file} of a new user namespace"),
            Step::Mount(what) => write!(f, "{what}"),
            Step::PivotRoot => write!(f, "changing the root (pivot_root)"),
            Step::OldRoot => write!(f, "detaching the old root"),
        }?;
        write!(f, ": {}", self.errno)
    }
}

impl Step {
    fn failed(self, errno: impl Into<Errno>) -> Refusal {
        Refusal { step: self, errno: errno.into() }
    }
}

/// Puts this process, which has one thread, into new namespaces. An ordinary user needs a user namespace for the others; in it the
/// user has the same numbers, and all capabilities until they are given up.
///
/// After an error nothing has changed, except that mounts of the host no longer appear in this process.
pub(crate) fn unshare_all(is_root: bool, network: bool) -> Result<(), Refusal> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    flags.set(CloneFlags::CLONE_NEWNET, network);
    if is_root {
        unshare(flags).map_err(|errno| Step::Unshare.failed(errno))
    } else {
        // AppArmor permits unshare and then refuses the maps. There is no way back from the namespace, so try that in a child.
        try_in_child()?;
        enter_user_namespace(flags)
    }
}

fn try_in_child() -> Result<(), Refusal> {
    let attempt = || match enter_user_namespace(CloneFlags::empty()) {
        Ok(()) => "ok".to_owned(),
        Err(Refusal { step: Step::Map(file), errno }) => format!("{file} {}", errno as i32),
        Err(Refusal { errno, .. }) => format!("unshare {}", errno as i32),
    };
    let result = in_child(attempt).map_err(|error| Step::Fork.failed(errno_of(&error)))?;
    if result == "ok" {
        return Ok(());
    }
    let (step, errno) = result.split_once(' ').unwrap_or_default();
    let step = MAPS.iter().find(|file| **file == step).map_or(Step::Unshare, |file| Step::Map(file));
    Err(step.failed(Errno::from_raw(errno.parse().unwrap_or(libc::EPERM))))
}

const MAPS: [&str; 3] = ["setgroups", "uid_map", "gid_map"];

fn enter_user_namespace(others: CloneFlags) -> Result<(), Refusal> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | others).map_err(|errno| Step::Unshare.failed(errno))?;
    // Only a process that can't call setgroups may map its group (user_namespaces(7)).
    let contents = ["deny".to_owned(), format!("{uid} {uid} 1"), format!("{gid} {gid} 1")];
    for (file, text) in MAPS.iter().zip(contents) {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| Step::Map(file).failed(errno_of(&error)))?;
    }
    Ok(())
}

/// Replaces the root by an empty, read-only directory. Needs a mount namespace of this process's own.
///
/// After an error the root and the working directory are those from before, except if the step is [`Step::OldRoot`].
pub(crate) fn empty_root() -> Result<(), Refusal> {
    // Otherwise the host would get our mounts.
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(|errno| Step::Mount("making mounts private").failed(raw(errno)))?;
    let before = openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    mount(c"sandbox", PLACE, c"tmpfs", ROOT_FLAGS, ROOT_OPTIONS)
        .and_then(|()| chdir(PLACE))
        .map_err(|errno| Step::Mount("mounting a tmpfs").failed(raw(errno)))?;
    if let Err(refusal) = enter_root() {
        let _ = unmount(".", UnmountFlags::DETACH);
        if let Some(before) = before {
            let _ = fchdir(before);
        }
        return Err(refusal);
    }
    Ok(())
}

/// Makes the working directory, where a file system was mounted, the root.
fn enter_root() -> Result<(), Refusal> {
    mount_remount(".", ROOT_FLAGS | MountFlags::RDONLY, ROOT_OPTIONS)
        .map_err(|errno| Step::Mount("remounting a tmpfs read-only").failed(raw(errno)))?;
    match pivot_root(".", ".") {
        // The old root lies over the new one (pivot_root(2), NOTES).
        Ok(()) => unmount(".", UnmountFlags::DETACH).map_err(|errno| Step::OldRoot.failed(raw(errno))),
        // The root is an initramfs, which can't be detached. It is hidden below the new one, as switch_root(8) does.
        Err(rustix::io::Errno::INVAL) => mount_move(".", "/")
            .and_then(|()| chroot("."))
            .map_err(|errno| Step::Mount("moving a tmpfs over an initramfs").failed(raw(errno))),
        Err(errno) => Err(Step::PivotRoot.failed(raw(errno))),
    }
}

fn raw(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
