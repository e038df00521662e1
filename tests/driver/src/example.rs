//! The examples of vmm-vcpu, vmm-machine and vmm-bin, which are programs under test, too.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::workspace;

/// Brings the examples up to date, and the monitor with hooks for tests of its sandbox. In the rig they are taken
/// as they are.
///
/// # Panics
/// One of them doesn't build.
pub fn build_examples() {
    build(&["--package", "vmm-vcpu", "--package", "vmm-machine", "--examples"]);
    build(&["--package", "vmm-bin", "--example", "escape", "--features", "vmm-bin/escape-hooks"]);
}

fn build(what: &[&str]) {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .arg("build")
        .args(what)
        .arg("--target-dir")
        .arg(target())
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "cargo build {}: {status}", what.join(" "));
}

/// Path of the example called `name`, which [`build_examples`] has built.
pub fn example(name: &str) -> PathBuf {
    target().join("debug/examples").join(name)
}

/// The directory of this program's own build.
fn target() -> PathBuf {
    let own = env::current_exe().expect("the path of this program");
    own.ancestors().nth(3).map(Path::to_owned).expect("it is target/PROFILE/deps/NAME-HASH")
}
