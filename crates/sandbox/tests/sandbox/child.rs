//! A child process that runs the test program again, for one test.

use std::env;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};

use crate::raw;

/// Set in the child's environment.
const CHILD: &str = "VMM_SANDBOX_TESTS_CHILD";
/// What the child prints if its body has returned.
const DONE: &str = "the body has returned";
const NOBODY: u32 = 65534;

/// The user that a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// The user that runs the tests.
    Tester,
    /// An ordinary user: nobody, if root runs the tests.
    Ordinary,
}

/// Runs `body` in a child process of the test called `test`, as its only thread and with a directory for
/// temporary files; returns the child's output.
pub(crate) fn run(test: &str, user: As, body: fn()) -> Output {
    run_with(test, user, &[], body)
}

/// Runs `body` as [`run`] does, with `variables` in its environment.
pub(crate) fn run_with(test: &str, user: As, variables: &[(&str, &str)], body: fn()) -> Output {
    let name = format!("{test} as {user:?}");
    if env::var_os(CHILD).is_some_and(|running| running == name.as_str()) {
        be_the_child(user, body);
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
        .env(CHILD, name)
        .env_remove("RUST_BACKTRACE")
        .env("TMPDIR", directory.path())
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn be_the_child(user: As, body: fn()) -> ! {
    // The harness has a second thread, which a process forked now lacks.
    let end = raw::in_fork(|| {
        be(user);
        body();
        println!("\n{DONE}");
        std::io::stdout().flush().unwrap();
    });
    match end {
        WaitStatus::Exited(_, code) => std::process::exit(code),
        // As the shell calls it.
        WaitStatus::Signaled(_, signal, _) => std::process::exit(128 + signal as i32),
        end => panic!("{end:?}"),
    }
}

/// Runs `body` as [`run`] does, and checks that it returns.
pub(crate) fn passes(test: &str, user: As, body: fn()) {
    let output = run(test, user, body);
    assert!(has_returned(&output), "as {user:?}: {output:?}");
}

pub(crate) fn has_returned(output: &Output) -> bool {
    output.status.code() == Some(0) && String::from_utf8_lossy(&output.stdout).contains(DONE)
}

fn be(user: As) {
    if user == As::Ordinary && geteuid().is_root() {
        setgroups(&[]).unwrap();
        setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).unwrap();
        setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).unwrap();
        // The kernel has cleared it, as for a set-uid program, and with it the right to write in /proc/self.
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }
}
