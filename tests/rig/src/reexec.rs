//! For test binaries without the standard harness, and for tools: continues here if this host can run Linux
//! guests, otherwise runs the same program with the same arguments in the rig.

use std::env;
use std::ffi::OsString;

use crate::assets::Assets;
use crate::error::{At, Result};
use crate::host::{self, Reason};
use crate::machine::Rig;
use crate::variables::in_rig;

/// Where the guests of this process run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after a run in the rig the caller has nothing left to do but exit"]
pub enum Place {
    /// Here: the host's KVM runs Linux, or this is the rig.
    Here,
    /// In the rig, where this program has been run and returned this exit code.
    Rig(i32),
}

/// Why guests can't run on this host; `None` if they can, or if this is the rig.
pub fn reason_for_rig() -> Option<Reason> {
    if in_rig() { None } else { host::can_run_linux().err() }
}

/// Returns [`Place::Here`] if guests can run. Otherwise prepares all assets, because the rig has no network,
/// runs the current executable in the rig with `args`, forwards its output, and returns its exit code.
///
/// An error means that the rig itself failed, not the program.
pub fn run_here_or_in_rig(args: impl IntoIterator<Item = OsString>) -> Result<Place> {
    let assets = Assets::here();
    if !in_rig() {
        assets.prepare_all()?;
    }
    if reason_for_rig().is_none() {
        return Ok(Place::Here);
    }
    let program = env::current_exe().at("find", "the running program".as_ref())?;
    let argv = std::iter::once(program.into_os_string()).chain(args);
    let outcome = Rig::new(&assets).run(argv)?;
    Ok(Place::Rig(outcome.exit_code))
}
