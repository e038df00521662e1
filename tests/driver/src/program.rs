//! The programs under test.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Environment variable with a program to use instead of building one.
pub const VMM_BIN: &str = "VMM_BIN";

/// Arguments and flags of a build.
struct Linkage {
    arguments: &'static [&'static str],
    flags: Option<&'static str>,
}

/// Linked statically, the monitor starts without the dynamic loader and maps a third less memory. With an explicit target, the flags
/// don't apply to build scripts and procedural macros, which can't be static.
const STATIC: Linkage =
    Linkage { arguments: &["--target", "host-tuple"], flags: Some("-C target-feature=+crt-static") };

/// As cargo builds programs by default.
const DYNAMIC: Linkage = Linkage { arguments: &[], flags: None };

/// The same for [`agent_program`].
pub const AGENT_BIN: &str = "VMM_AGENT_BIN";

/// Set to 1 where the tests run as an ordinary user with root's capabilities, which the programs under test must not have.
pub const AS_USER: &str = "VMM_AS_USER";

/// Whether [`AS_USER`] is set.
pub fn is_as_user() -> bool {
    env::var_os(AS_USER).is_some_and(|value| value == "1")
}

/// Directory with a C library and its loader `ld.so`, with which programs under test run instead of the host's. They must be linked
/// dynamically.
pub const LIBC_DIR: &str = "VMM_LIBC_DIR";

/// The command that runs a program, its next argument, with the library in [`LIBC_DIR`]; nothing if that isn't set.
pub(crate) fn loader() -> Vec<OsString> {
    let command = |dir: OsString| [Path::new(&dir).join("ld.so").into(), "--library-path".into(), dir];
    env::var_os(LIBC_DIR).map(command).into_iter().flatten().collect()
}

/// Path of the monitor as users run it, its static release build, brought up to date once per process. The
/// variable `VMM_BIN` overrides it.
pub fn monitor_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os(VMM_BIN).map_or_else(|| build("vmm-bin", &STATIC), given))
}

/// Path of the program that guests run in tests (tests/agent), built in the same way; `VMM_AGENT_BIN`
/// overrides it.
pub fn agent_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os(AGENT_BIN).map_or_else(|| build("guest-agent", &STATIC), given))
}

/// Builds the monitor as a dynamically linked program and returns its path.
///
/// # Panics
/// It doesn't build.
pub fn build_dynamic_monitor() -> PathBuf {
    build("vmm-bin", &DYNAMIC)
}

/// A relative path is relative to the workspace, because cargo runs each test in its package's directory.
fn given(path: OsString) -> PathBuf {
    workspace().join(path)
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/driver lies in the workspace")
}

fn build(package: &str, linkage: &Linkage) -> PathBuf {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--package", package, "--message-format", "json-render-diagnostics"])
        .args(linkage.arguments)
        .envs(linkage.flags.map(|flags| ("RUSTFLAGS", flags)))
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo build --release --package {package}: {}", output.status);
    let messages = String::from_utf8(output.stdout).expect("cargo's messages are UTF-8");
    messages
        .lines()
        .find_map(|message| executable(message, package))
        .expect("cargo says where it put the program")
}

/// The program of `package`, if this message of cargo is about it.
fn executable(message: &str, package: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_ours = message["target"]["name"] == package && message["target"]["kind"][0] == "bin";
    message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_about_the_monitor_names_its_executable() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"vmm-bin","kind":["bin"]},"executable":"/t/release/vmm-bin"}"#;
        assert_eq!(executable(message, "vmm-bin"), Some("/t/release/vmm-bin".into()));
    }

    #[test]
    fn message_about_a_build_script_or_a_library_is_skipped() {
        let script = r#"{"target":{"name":"build-script-build"},"executable":"/t/build"}"#;
        assert_eq!(executable(script, "vmm-bin"), None);
        assert_eq!(
            executable(r#"{"target":{"name":"vmm-bin","kind":["bin"]},"executable":null}"#, "vmm-bin"),
            None
        );
    }
}
