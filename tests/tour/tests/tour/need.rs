//! What the host must have for a step.

use std::process::{Command, Stdio};

use tour_tests::Command as Line;

/// Programs that a page tells its reader to install, and their packages.
const PROGRAMS: [(&str, &str); 2] = [("nasm", "nasm"), ("strace", "strace")];

/// Installs what the commands need and this host lacks.
///
/// # Errors
/// Says what is missing.
pub(crate) fn of(commands: &[Line]) -> Result<(), String> {
    // The pages are about this host's KVM; what needs one that runs Linux starts the rig by itself.
    if let Err(reason) = rig::can_run_linux()
        && reason != rig::Reason::SoftwareKvm
    {
        return Err(reason.to_string());
    }
    for (program, package) in PROGRAMS {
        if commands.iter().any(|command| command.script.split_whitespace().any(|word| word == program)) {
            rig::packages::install(&[package]).map_err(|error| error.to_string())?;
        }
    }
    let traces = commands.iter().any(|command| command.script.contains("strace "));
    if traces && !can_trace() {
        return Err("strace can't trace a program here: `strace true` fails".to_owned());
    }
    Ok(())
}

/// A container may forbid ptrace.
fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().is_ok_and(|status| status.success())
}
