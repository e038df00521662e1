//! Landlock: paths, TCP ports, and processes outside, whatever is opened later (Documentation/userspace-api/landlock.rst).

use std::os::fd::OwnedFd;

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::report::Wall;

/// What a process may still reach. Descriptors that are open already keep their rights.
#[derive(Debug)]
pub struct Access {
    /// Ports that TCP sockets may connect to.
    pub tcp_connect: Ports,
    /// Ports that TCP sockets may be bound to.
    pub tcp_bind: Ports,
    /// Directories in which, and below which, files may be removed.
    pub remove_in: Vec<OwnedFd>,
    /// Directories in which, and below which, unix sockets may be connected to. Only kernels with ABI 9 ask.
    pub connect_in: Vec<OwnedFd>,
}

/// A set of TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All: Landlock doesn't look at them.
    Any,
    /// These. If there are none, the call is refused altogether.
    Only(Vec<u16>),
}

/// The newest ABI whose rights are asked for: those that a kernel doesn't have are left out.
const NEWEST: ABI = ABI::V9;
const FILES: &str = "Landlock, files";
/// The name of the wall of TCP ports.
pub const TCP: &str = "Landlock, TCP ports";
/// The name of the wall of signals and abstract sockets.
pub const SCOPES: &str = "Landlock, signals and abstract sockets";

/// Restricts the calling thread, and threads and processes that it creates later, for good: no file can be opened, made, renamed or
/// removed by path, except as `access` says; TCP ports are limited; no signal reaches a process outside, nor can one connect to
/// an abstract unix socket outside. Call it before the first thread is created.
///
/// Returns the walls: those that this kernel can't build are missing, and the others stand.
#[must_use = "it says what isn't enforced"]
pub fn restrict(access: Access) -> Vec<Wall> {
    let limits_tcp = access.limits_tcp();
    match enforce(access) {
        Ok(RestrictionStatus {
            landlock: LandlockStatus::Available { effective_abi, kernel_abi }, ..
        }) => walls(effective_abi, kernel_abi.unwrap_or(effective_abi as i32), limits_tcp),
        Ok(RestrictionStatus { landlock: LandlockStatus::NotEnabled, .. }) => {
            vec![Wall::missing(
                "Landlock",
                "the kernel has it, but it isn't enabled",
                "add landlock to the kernel's parameter lsm=",
            )]
        }
        Ok(_) => vec![Wall::missing(
            "Landlock",
            "the kernel doesn't have it, or a container's seccomp profile forbids it",
            "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK",
        )],
        Err(error) => vec![Wall::missing(
            "Landlock",
            error.to_string(),
            "start it outside of other Landlock sandboxes: the kernel stacks at most 16",
        )],
    }
}

impl Access {
    fn limits_tcp(&self) -> bool {
        self.tcp_connect != Ports::Any || self.tcp_bind != Ports::Any
    }
}

fn enforce(access: Access) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    let tcp = [(AccessNet::ConnectTcp, access.tcp_connect), (AccessNet::BindTcp, access.tcp_bind)];
    for (right, _) in tcp.iter().filter(|(_, ports)| *ports != Ports::Any) {
        ruleset = ruleset.handle_access(*right)?;
    }
    let mut ruleset = ruleset.create()?;
    for (right, ports) in tcp {
        if let Ports::Only(ports) = ports {
            ruleset = ports.into_iter().try_fold(ruleset, |ruleset: RulesetCreated, port| {
                ruleset.add_rule(NetPort::new(port, right))
            })?;
        }
    }
    let directories = [(AccessFs::RemoveFile, access.remove_in), (AccessFs::ResolveUnix, access.connect_in)];
    for (right, directories) in directories {
        ruleset = directories.into_iter().try_fold(ruleset, |ruleset: RulesetCreated, directory| {
            ruleset.add_rule(PathBeneath::new(directory, right))
        })?;
    }
    ruleset.restrict_self()
}

/// What a kernel with `abi`, which calls itself `kernel`, enforces.
fn walls(abi: ABI, kernel: i32, limits_tcp: bool) -> Vec<Wall> {
    let since = |needed: ABI, name: &str, detail: &str, linux: &str| {
        if abi >= needed {
            Wall::up(name, format!("{detail} (ABI {kernel})"))
        } else {
            Wall::missing(
                name,
                format!("this kernel's Landlock has ABI {kernel}"),
                format!("use Linux {linux} or later"),
            )
        }
    };
    let mut walls = vec![Wall::up(FILES, format!("no path can be opened (ABI {kernel})"))];
    if limits_tcp {
        walls.push(since(ABI::V4, TCP, "only those of the config", "6.7"));
    }
    walls.push(since(ABI::V6, SCOPES, "only this process", "6.12"));
    walls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_that_the_kernel_is_too_old_for_is_missing() {
        let states = |abi, kernel| walls(abi, kernel, true).iter().map(Wall::is_up).collect::<Vec<_>>();
        assert_eq!(states(ABI::V2, 2), [true, false, false]);
        assert_eq!(states(ABI::V4, 4), [true, true, false]);
        assert_eq!(states(ABI::V6, 6), [true, true, true]);
        let old = walls(ABI::V2, 2, true);
        assert_eq!(
            old[1].to_string(),
            "Landlock, TCP ports: missing: this kernel's Landlock has ABI 2; use Linux 6.7 or later"
        );
    }

    #[test]
    fn ports_that_arent_limited_are_no_wall() {
        assert!(walls(ABI::V2, 2, false).iter().all(|wall| wall.name != TCP));
    }

    #[test]
    fn abi_is_the_kernels_even_if_it_is_newer_than_this_crate() {
        assert!(walls(ABI::V10, 12, false)[0].to_string().ends_with("(ABI 12)"));
    }
}
