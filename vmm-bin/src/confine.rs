//! Confines the process at the one moment when everything is open and no guest runs.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{getgid, getuid};
use tracing::{info, warn};
use vmm_config::{Config, Sandbox};
use vmm_hostio::path_keeper::{Grant, KEEPER_CALLS, delegate_to, fork_keeper};
use vmm_hostio::terminal;
use vmm_machine::{Confine, StepTimes};
use vmm_sandbox::landlock::{Access, Ports, SCOPES, TCP, restrict};
use vmm_sandbox::{
    HostNetwork, Jail, JailNetwork, Needs, ViolationAction, Wall, confine_thread, enable, filters,
    keep_file_access, report_violations,
};

/// What confines a machine of `config`; `None` if it isn't to be confined.
pub(crate) fn confinement(config: &Config) -> Option<Confine> {
    let sandbox = config.sandbox;
    let user = (config.user.uid.map(|id| id.get()), config.user.gid.map(|id| id.get()));
    match sandbox {
        Sandbox::Off => {
            warn!("the sandbox is off: a guest that takes over the monitor has this user's rights");
            None
        }
        _ => Some(Confine(Box::new(move |needs| confine(sandbox, user, needs)))),
    }
}

fn confine(sandbox: Sandbox, user: (Option<u32>, Option<u32>), needs: Needs) -> io::Result<()> {
    let action = match sandbox {
        Sandbox::Seccomp(_) => ViolationAction::Log,
        Sandbox::On | Sandbox::Required | Sandbox::Off => ViolationAction::Trap,
    };
    let mut times = StepTimes::since(Instant::now());
    keep_paths(&needs, action)?;
    times.add("path keeper");
    let network = if needs.network.is_some() { JailNetwork::Host } else { JailNetwork::None };
    let user = other_user(user);
    let mut walls = Jail { network, user }.enter().map_err(io::Error::other)?;
    times.add("jail");
    walls.extend(restrict(access(needs)));
    times.add("Landlock");
    let calls = filters();
    if calls.is_up() {
        report_violations(terminal::restore)?;
        enable(action);
    }
    walls.push(calls);
    if action == ViolationAction::Log {
        warn!("the sandbox only logs system calls that its filters don't allow, and carries them out");
    }
    report(&walls, network, sandbox == Sandbox::Required)?;
    info!("sandbox: walls took {times}");
    Ok(())
}

/// The user and group to change to. Only root can; to stay the same, an ordinary user needs no change.
fn other_user(user: (Option<u32>, Option<u32>)) -> Option<(u32, u32)> {
    let (own, own_group) = (getuid(), getgid());
    let default = |own: u32| if getuid().is_root() { NOBODY } else { own };
    let wanted = match user {
        (None, None) => return None,
        (uid, gid) => {
            (uid.unwrap_or_else(|| default(own.as_raw())), gid.unwrap_or_else(|| default(own_group.as_raw())))
        }
    };
    (own.is_root() || wanted != (own.as_raw(), own_group.as_raw())).then_some(wanted)
}

/// User and group of a monitor that root has started.
const NOBODY: u32 = 65534;

/// Says which walls stand. One that is missing is an error if it is required, unless others cover what it is for.
fn report(walls: &[Wall], network: JailNetwork, is_required: bool) -> io::Result<()> {
    for wall in walls {
        match wall.is_up() || is_covered(wall, walls, network) {
            true => info!("sandbox: {wall}"),
            false if is_required => return Err(io::Error::other(format!("{wall}"))),
            false => warn!("sandbox: {wall}"),
        }
    }
    Ok(())
}

/// Whether the other `walls` do what a missing one is for. With no network there are no ports. Signals to others and abstract sockets
/// are also what no filter allows.
fn is_covered(missing: &Wall, walls: &[Wall], network: JailNetwork) -> bool {
    match &*missing.name {
        TCP => network == JailNetwork::None,
        SCOPES => walls.iter().all(|wall| wall.is_up() || wall.name == TCP || wall.name == SCOPES),
        _ => false,
    }
}

fn access(needs: Needs) -> Access {
    let none = HostNetwork { connect: Ports::Only(Vec::new()), bind: Ports::Only(Vec::new()) };
    let HostNetwork { connect, bind } = needs.network.unwrap_or(none);
    Access { tcp_connect: connect, tcp_bind: bind, remove_in: Vec::new(), connect_in: Vec::new() }
}

/// Starts the path keeper, if something is done by path later.
fn keep_paths(needs: &Needs, action: ViolationAction) -> io::Result<()> {
    let grant = Grant { connect_prefixes: needs.connects.clone(), remove: needs.removes.clone() };
    if grant == Grant::default() {
        return Ok(());
    }
    let keeper = fork_keeper(&grant, || {
        let access = Access {
            tcp_connect: Ports::Only(Vec::new()),
            tcp_bind: Ports::Only(Vec::new()),
            remove_in: directories(&grant.remove),
            connect_in: directories(&grant.connect_prefixes),
        };
        keep_file_access()?;
        // Walls that are missing here are missing in the monitor, which says so.
        let _ = restrict(access);
        if filters().is_up() {
            enable(action);
            confine_thread("path-keeper", &[KEEPER_CALLS])?;
        }
        Ok(())
    })?;
    delegate_to(keeper.socket);
    Ok(())
}

/// The directories of `paths`. One that doesn't exist has nothing to remove or connect to.
fn directories(paths: &[PathBuf]) -> Vec<OwnedFd> {
    let directory = |path: &PathBuf| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    };
    paths.iter().filter_map(directory).collect()
}

#[cfg(test)]
mod tests {
    use vmm_sandbox::WallState;

    use super::*;

    const FILES: &str = "Landlock, files";

    /// The walls of a host that lacks those in `missing`.
    fn walls(missing: &[&str]) -> Vec<Wall> {
        let state = |name: &str| match missing.contains(&name) {
            true => WallState::Missing { why: "it is old".to_owned(), remedy: "use a newer one".to_owned() },
            false => WallState::Up { detail: String::new() },
        };
        [FILES, TCP, SCOPES].map(|name| Wall { name: name.to_owned(), state: state(name) }).to_vec()
    }

    /// The error of a sandbox that is required, on a host that lacks `missing`.
    fn error(missing: &[&str], network: JailNetwork) -> Option<String> {
        report(&walls(missing), network, true).err().map(|error| error.to_string())
    }

    #[test]
    fn required_sandbox_needs_tcp_ports_only_with_a_network() {
        assert_eq!(error(&[], JailNetwork::Host), None);
        assert_eq!(error(&[TCP], JailNetwork::None), None);
        let missing = "Landlock, TCP ports: missing: it is old; use a newer one";
        assert_eq!(error(&[TCP], JailNetwork::Host).as_deref(), Some(missing));
    }

    #[test]
    fn required_sandbox_needs_scopes_only_if_another_wall_is_missing() {
        assert_eq!(error(&[SCOPES], JailNetwork::None), None);
        assert_eq!(error(&[SCOPES, TCP], JailNetwork::None), None);
        let walls = walls(&[FILES, SCOPES]);
        assert!(!is_covered(&walls[2], &walls, JailNetwork::None));
    }

    #[test]
    fn required_sandbox_needs_every_other_wall() {
        let missing = "Landlock, files: missing: it is old; use a newer one";
        assert_eq!(error(&[FILES], JailNetwork::None).as_deref(), Some(missing));
    }

    #[test]
    fn sandbox_that_isnt_required_does_without_a_wall() {
        assert!(report(&walls(&[FILES, TCP, SCOPES]), JailNetwork::Host, false).is_ok());
    }
}
