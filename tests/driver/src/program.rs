//! The programs under test.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Environment variable with a program to use instead of building one.
pub const VMM_BIN: &str = "VMM_BIN";

/// Linked statically, the monitor starts without the dynamic loader and maps a third less memory.
const STATIC: &str = "-C target-feature=+crt-static";

/// The same for [`agent_program`].
pub const AGENT_BIN: &str = "VMM_AGENT_BIN";

/// Path of the monitor as users run it, its static release build, brought up to date once per process. The
/// variable `VMM_BIN` overrides it.
pub fn monitor_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os(VMM_BIN).map_or_else(|| build("vmm-bin"), given))
}

/// Path of the program that guests run in tests (tests/agent), built in the same way; `VMM_AGENT_BIN`
/// overrides it.
pub fn agent_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os(AGENT_BIN).map_or_else(|| build("guest-agent"), given))
}

/// A relative path is relative to the workspace, because cargo runs each test in its package's directory.
fn given(path: OsString) -> PathBuf {
    workspace().join(path)
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/driver lies in the workspace")
}

fn build(package: &str) -> PathBuf {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--package", package, "--message-format", "json-render-diagnostics"])
        // With an explicit target, the flags don't apply to build scripts and procedural macros, which can't
        // be static.
        .args(["--target", "host-tuple"])
        .env("RUSTFLAGS", STATIC)
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
