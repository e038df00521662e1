//! Runs the measuring half of a benchmark, and passes specification and results between the halves.

use std::ffi::OsString;
use std::fs;
use std::io::stderr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rig::{Assets, Rig, note};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::part::{Part, SAMPLES_FILE};
use crate::failure::Failure;
use crate::workspace;

/// The directory for specification, results and other files of a benchmark. It is created if necessary.
pub(super) fn dir() -> Result<PathBuf, Failure> {
    let dir = workspace::target_dir().join("bench");
    fs::create_dir_all(&dir).map_err(|error| format!("can't create {}: {error}", dir.display()))?;
    Ok(dir)
}

/// Writes a file in [`dir`] and returns its path.
pub(super) fn write(name: &str, contents: &[u8]) -> Result<PathBuf, Failure> {
    let path = dir()?.join(name);
    fs::write(&path, contents).map_err(|error| format!("can't write {}: {error}", path.display()))?;
    Ok(path)
}

/// Whether the guests, and therefore the measuring half, run in the rig.
pub(super) fn in_rig(always: bool) -> bool {
    always || rig::reason_for_rig().is_some()
}

/// Runs the measuring half with `spec`, on the host or in the rig, and returns its results. Its output is progress, and goes to
/// standard error.
pub(super) fn measure<S: Serialize, T: DeserializeOwned>(
    part: Part,
    spec: &S,
    timeout: Duration,
    (assets, always_rig): (&Assets, bool),
) -> Result<T, Failure> {
    measure_in(in_rig(always_rig), part, spec, timeout, assets)
}

/// The same, in the rig if `in_rig`.
pub(super) fn measure_in<S: Serialize, T: DeserializeOwned>(
    in_rig: bool,
    part: Part,
    spec: &S,
    timeout: Duration,
    assets: &Assets,
) -> Result<T, Failure> {
    let dir = dir()?;
    let spec_path = write("spec.json", &serde_json::to_vec_pretty(spec)?)?;
    let inner = |out: &Path| -> Result<[OsString; 5], Failure> {
        let program = std::env::current_exe()?.into_os_string();
        Ok([program, "bench-inner".into(), part.name().into(), spec_path.clone().into(), out.into()])
    };
    let code = if in_rig {
        let reason = rig::reason_for_rig().map_or("as requested".to_owned(), |reason| reason.to_string());
        note(&format!("{reason}; measuring in the rig"));
        let rig = Rig::new(assets).results(&dir).timeout(timeout);
        rig.run_into(inner(Path::new(rig::RESULTS_DIR))?, &mut stderr())?.exit_code
    } else {
        let command = inner(&dir)?;
        Command::new(&command[0]).args(&command[1..]).stdout(stderr()).status()?.code().unwrap_or(1)
    };
    if code != 0 {
        return Err(format!("the measuring half failed with exit code {code}").into());
    }
    let samples = dir.join(SAMPLES_FILE);
    let text = fs::read(&samples).map_err(|error| format!("can't read {}: {error}", samples.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
