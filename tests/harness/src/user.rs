//! Makes this process an ordinary user's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use driver::{AGENT_BIN, AS_USER, VMM_BIN, agent_program, monitor_program};
use rig::in_rig;

use crate::parts::Part;

/// User and group if the workspace is root's, who has no ordinary user's numbers.
const ANY_USER: (u32, u32) = (1000, 1000);

pub(crate) fn is_root() -> bool {
    // The owner of our own files in proc(5) is the effective user.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs this program again as the owner of the workspace, in the group of /dev/kvm, with root's capabilities, which the monitor
/// doesn't get. Returns only if that fails, with the reason.
pub(crate) fn run_again_as_user(part: Part) -> String {
    let command = group_of_kvm().and_then(|group| {
        if in_rig() {
            open_directories()?;
        }
        again(group)
    });
    match command {
        Ok(mut command) => format!("setpriv can't be started: {}", command.envs(part.variables()).exec()),
        Err(why) => why,
    }
}

fn again(group: u32) -> Result<Command, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let (uid, gid) = match own.metadata() {
        Ok(owner) if owner.uid() != 0 => (owner.uid(), owner.gid()),
        _ => ANY_USER,
    };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), format!("--groups={group}")]);
    let capabilities = own_capabilities()?;
    command.args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")]);
    command.arg(own).args(std::env::args_os().skip(1));
    command.env(AS_USER, "1").env(VMM_BIN, monitor_program()).env(AGENT_BIN, agent_program());
    Ok(command)
}

/// The capabilities of this process as setpriv(1) wants them: root in a container doesn't have all.
fn own_capabilities() -> Result<String, String> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let set = |name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    match set("CapPrm:") & set("CapBnd:") {
        0 => Err("root has no capabilities here, so that it can't become another user".to_owned()),
        set => Ok(added(set)),
    }
}

/// Adds each capability of a set.
fn added(set: u64) -> String {
    let numbers = (0..u64::BITS).filter(|number| set & (1 << number) != 0);
    numbers.map(|number| format!("+cap_{number}")).collect::<Vec<_>>().join(",")
}

/// The group that may open /dev/kvm.
fn group_of_kvm() -> Result<u32, String> {
    let kvm = fs::metadata("/dev/kvm").map_err(|error| format!("/dev/kvm: {error}"))?;
    match kvm.gid() {
        0 => Err("/dev/kvm has the group root, so that no ordinary user can open it".to_owned()),
        group => Ok(group),
    }
}

/// Lets everybody pass through the directories of the programs and assets, which may be in a home directory. In the rig, that
/// changes nothing on the host.
fn open_directories() -> Result<(), String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    for dir in monitor_program().ancestors().skip(1).chain(workspace.ancestors()) {
        let failed = |error| format!("{}: {error}", dir.display());
        let mode = fs::metadata(dir).map_err(failed)?.mode();
        if mode & 0o111 != 0o111 {
            fs::set_permissions(dir, Permissions::from_mode(mode | 0o111)).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_by_number() {
        assert_eq!(added(0b1000_0101), "+cap_0,+cap_2,+cap_7");
    }
}
