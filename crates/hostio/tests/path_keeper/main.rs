//! The keeper as a process. Each scenario is a monitor: it runs in a child process of this test program, which
//! must have one thread.

mod scenarios;

use std::env;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

/// Set in a monitor's environment to the name of its scenario.
pub(crate) const SCENARIO: &str = "VMM_HOSTIO_TESTS_SCENARIO";

fn main() -> ExitCode {
    if let Some(name) = env::var_os(SCENARIO) {
        let known = scenarios::ALL.iter().chain(scenarios::OTHERS).find(|(known, _)| *known == name);
        known.expect("the parent names one of them").1();
        return ExitCode::SUCCESS;
    }
    let tests = scenarios::ALL.iter().map(|(name, _)| Trial::test(*name, || run(name)));
    libtest_mimic::run(&Arguments::from_args(), tests.collect()).exit_code()
}

/// Runs a scenario in a child process.
fn run(name: &str) -> Result<(), Failed> {
    let mut monitor = Command::new(env::current_exe()?);
    // Waits until nobody has the other ends of its output, also not a keeper.
    let output = monitor.env(SCENARIO, name).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status).into()) }
}
