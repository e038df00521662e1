//! Runs the tests with a monitor that strace watches.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use driver::{AGENT_BIN, VMM_BIN};
use rig::{Assets, RESULTS_DIR, Rig, note};
use serde_json::Value;

use super::trace::PREFIX;
use crate::failure::Failure;
use crate::workspace::{self, cargo, succeed};

/// Variable with the directory of the traces, for the wrapper.
const TRACES: &str = "VMM_TRACES";

/// Bare-metal tests that can't run under strace, each with the reason.
const NOT_UNDER_STRACE: &[(&str, &str)] = &[
    ("flat_reset_loop_uses_a_whole_processor", "strace takes most of the processor's time"),
    ("flat_reset_without_end_by_a_bad_driver", "strace makes a restart too slow for its deadline"),
    ("smp_three_hundred_processors_answer", "strace makes their threads' end slow enough for a message"),
];

/// The Linux guests' tests, by words in their names: those that add roles of threads, devices or system calls. All would take hours,
/// since each call under strace stops the monitor twice, in an emulated processor.
const GUEST_TESTS: &[&str] = &[
    "power_reset_with_restart",
    "power_panic",
    "virtio_",
    "command_that_changes",
    "pci_bar",
    "net_carries",
    "net_link_goes",
    "net_with_two",
    "usernet_gives",
    "usernet_carries",
    "vsock_agents",
    "net_vhost_carries",
    "vsock_vhost_carries",
    "console_on_the",
    "output_to_",
    "fio_two",
    "rootfs_overlay",
];

/// Time for the guest tests in the rig.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// The monitor's file name.
const PROGRAM: &str = "vmm-bin";

/// Tests that are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Suite {
    /// The bare-metal guests, on this host
    BareMetal,
    /// Linux guests, in the rig
    Linux,
}

impl Suite {
    pub(super) const ALL: [Self; 2] = [Self::BareMetal, Self::Linux];

    /// The name of its traces' directory.
    fn name(self) -> &'static str {
        match self {
            Self::BareMetal => "bare-metal",
            Self::Linux => "linux",
        }
    }
}

/// A directory with a program that runs the monitor under strace, and with the traces.
pub(super) struct Traced {
    directory: PathBuf,
}

impl Traced {
    pub(super) fn in_target() -> Self {
        Self { directory: workspace::target_dir().join("calls") }
    }

    /// Writes the wrapper of `monitor`.
    ///
    /// -D keeps the monitor's process ID, for the tests' signals. With -ff each thread has a file, so lines aren't interleaved. Raw
    /// arguments are what filters compare; only those are decoded that tell of threads and filters.
    pub(super) fn prepare(&self, monitor: &Path) -> Result<(), Failure> {
        fs::create_dir_all(&self.directory)?;
        let script = format!(
            "#!/bin/sh\n\
             run=$(mktemp -d \"${{{TRACES}:?}}/XXXXXXXX\") && chmod 777 \"$run\" || exit\n\
             exec strace -D -ff -qq -n -v -X raw -s 64 -e signal=none -e 'raw=!execve,prctl,seccomp,clone3' \
             -o \"$run/{PREFIX}\" {monitor:?} \"$@\"\n"
        );
        fs::write(self.program(), script)?;
        Ok(fs::set_permissions(self.program(), fs::Permissions::from_mode(0o755))?)
    }

    /// The program's name is the first thread's, which tests look at.
    fn program(&self) -> PathBuf {
        self.directory.join(PROGRAM)
    }

    fn traces(&self, suite: Suite) -> PathBuf {
        self.directory.join(suite.name())
    }

    /// Removes the traces of the last time.
    fn clear(&self, suite: Suite) -> Result<PathBuf, Failure> {
        let traces = self.traces(suite);
        if traces.exists() {
            fs::remove_dir_all(&traces)?;
        }
        fs::create_dir(&traces)?;
        // Tests start the monitor as other users, too.
        fs::set_permissions(&traces, fs::Permissions::from_mode(0o1777))?;
        Ok(traces)
    }

    /// The traces' directories, one per run of the monitor.
    ///
    /// # Errors
    /// A suite hasn't run.
    pub(super) fn runs(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut runs = Vec::new();
        for suite in Suite::ALL {
            let name = suite.name();
            let entries = fs::read_dir(self.traces(suite));
            let entries =
                entries.map_err(|_| format!("no traces of {name}: run `cargo xtask calls {name}`"))?;
            runs.extend(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?);
        }
        Ok(runs)
    }

    /// Runs a suite; returns what is wrong.
    pub(super) fn run(&self, suite: Suite) -> Result<Option<String>, Failure> {
        let traces = self.clear(suite)?;
        let has_passed = match suite {
            Suite::BareMetal => self.bare_metal(&traces)?,
            Suite::Linux => self.linux(&traces)?,
        };
        Ok((!has_passed).then(|| format!("tests of {} failed under strace", suite.name())))
    }

    fn bare_metal(&self, traces: &Path) -> Result<bool, Failure> {
        let mut tests = cargo(&["test", "--package", "micro-tests", "--test", "micro", "--"]);
        for (name, reason) in NOT_UNDER_STRACE {
            note(&format!("without {name}: {reason}"));
            tests.args(["--skip", name]);
        }
        let status = tests.env(VMM_BIN, self.program()).env(TRACES, traces).status()?;
        end_leftovers(traces)?;
        Ok(status.success())
    }

    fn linux(&self, traces: &Path) -> Result<bool, Failure> {
        let tests = guest_tests()?;
        // This run of no tests prepares what they use.
        let mut prepare = Command::new(&tests);
        succeed(prepare.args(["--exact", "none"]).status()?, "the preparation of the guest tests")?;
        // The traces are in the rig's memory first: strace writes each line by itself.
        let script = format!(
            "export {TRACES}=/dev/shm/traces; mkdir -m 1777 ${TRACES}; code=0; tests=$1; shift\n\
             for word; do \"$tests\" \"$word\" || code=1; done\n\
             cp -r ${TRACES}/. {RESULTS_DIR} || code=1\n\
             exit $code"
        );
        let words = ["sh", "-c", &script, "sh"].map(OsString::from);
        let words = words.into_iter().chain([tests.into()]).chain(GUEST_TESTS.iter().map(OsString::from));
        let rig = Rig::new(&Assets::at(workspace::root()))
            .env(VMM_BIN, self.program())
            .env(AGENT_BIN, driver::agent_program())
            .current_dir(workspace::root().join("tests/guest"))
            .results(traces)
            .timeout(TIMEOUT);
        Ok(rig.run(words)?.exit_code == 0)
    }
}

/// Ends monitors that a failed test has left running: their traces would grow for ever.
fn end_leftovers(traces: &Path) -> Result<(), Failure> {
    for run in fs::read_dir(traces)? {
        for trace in fs::read_dir(run?.path())? {
            let trace = trace?.path();
            let id = trace.extension().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
            // The first thread's number is the process's.
            let executed = fs::read_link(format!("/proc/{id}/exe"));
            if executed.is_ok_and(|program| program == driver::monitor_program()) {
                note(&format!("ending a monitor that a test has left running: {}", trace.display()));
                Command::new("kill").args(["-KILL", &id]).status()?;
            }
        }
    }
    Ok(())
}

/// Builds the guest tests; returns their program.
fn guest_tests() -> Result<PathBuf, Failure> {
    let mut build = cargo(&["test", "--package", "guest-tests", "--no-run"]);
    let output = build.args(["--message-format", "json-render-diagnostics"]).output()?;
    succeed(output.status, "cargo test --package guest-tests --no-run")?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["kind"][0] == "test";
        message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(executable).ok_or_else(|| "cargo doesn't say where the guest tests are".into())
}
