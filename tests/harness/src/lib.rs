#![forbid(unsafe_code)]

//! The main function of test binaries that need KVM: the tests run here, or all of them in the rig, or each
//! is reported with the reason why it can't run.
//!
//! The standard harness can't ignore a test at run time; this one is libtest-mimic, with the same command
//! line.

mod shards;

use std::process::ExitCode;

use driver::{AGENT_BIN, VMM_BIN, agent_program, monitor_program};
pub use libtest_mimic;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rig::{Assets, Error, Reason, Rig, Stage, in_rig, note};

use crate::shards::Shard;

/// Set to 1 to run everything in the rig, including what could run here.
pub const USE_RIG: &str = "VMM_USE_RIG";

/// Number of concurrent guests in the rig. Its CPUs share one host thread, so a second guest would only slow
/// the first one down.
const RIG_THREADS: usize = 1;

/// What the tests require of /dev/kvm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// It can be opened. A software KVM is enough.
    AnyKvm,
    /// It runs a stock Linux kernel.
    Linux,
}

/// The tests of a module, with their names.
#[macro_export]
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::libtest_mimic::Trial::test(stringify!($test), || {
            $test();
            Ok(())
        })),*]
    };
}

/// Runs the tests here or in the rig. `prepare` builds and fetches everything they use besides the monitor;
/// it isn't called in the rig, which can neither access a network nor build anything.
pub fn run(tests: Vec<Trial>, needs: Needs, prepare: impl FnOnce() -> Result<(), String>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, tests).exit_code();
    }
    let shard = Shard::of_this_process();
    let tests = match &shard {
        Some(shard) => shard.of(tests),
        None => tests,
    };
    build(needs);
    let prepared = if in_rig() { Ok(()) } else { prepare() };
    let place = match reason_for_rig(needs) {
        None => prepared,
        Some(_) if shard.is_none() && prepared.is_ok() && shards::are_worth_it(&tests, &arguments) => {
            return shards::run();
        }
        Some(reason) => match prepared.and_then(|()| run_in_rig(&reason, needs, shard.as_ref())) {
            Ok(code) => return code,
            Err(why) => Err(format!("{reason}, and the rig doesn't run either: {why}")),
        },
    };
    let tests = match place {
        Ok(()) => tests,
        Err(why) => without(tests, &why),
    };
    if in_rig() {
        arguments.test_threads.get_or_insert(RIG_THREADS);
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Why the tests don't run here.
fn reason_for_rig(needs: Needs) -> Option<String> {
    if !in_rig() && std::env::var_os(USE_RIG).is_some_and(|value| value == "1") {
        return Some(format!("{USE_RIG} is set"));
    }
    match (rig::reason_for_rig(), needs) {
        (None, _) | (Some(Reason::SoftwareKvm), Needs::AnyKvm) => None,
        (Some(reason), _) => Some(reason.to_string()),
    }
}

/// Builds the programs that no variable overrides.
fn build(needs: Needs) {
    monitor_program();
    if needs == Needs::Linux {
        agent_program();
    }
}

/// Runs this program in the rig with the same arguments.
fn run_in_rig(reason: &str, needs: Needs, shard: Option<&Shard>) -> Result<ExitCode, String> {
    note(&format!("{reason}: the tests run in the rig"));
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let argv = [own.into_os_string()].into_iter().chain(std::env::args_os().skip(1));
    let mut rig = Rig::new(&Assets::here()).env(VMM_BIN, monitor_program());
    if needs == Needs::Linux {
        rig = rig.env(AGENT_BIN, agent_program());
    }
    if let Some(shard) = shard {
        rig = rig.env(shards::SHARD, shard.to_string());
    }
    match rig.run(argv) {
        Ok(outcome) => Ok(ExitCode::from(u8::try_from(outcome.exit_code).unwrap_or(1))),
        Err(error) if has_begun(&error) => {
            note(&format!("the tests didn't finish: {error}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether tests had run before the error, so that they are able to run.
fn has_begun(error: &Error) -> bool {
    matches!(
        error,
        Error::Rig { stage: Stage::Command, .. } | Error::Timeout { .. } | Error::Interrupted { .. }
    )
}

/// The same tests, each ignored with the reason, or failed where they are required.
fn without(tests: Vec<Trial>, why: &str) -> Vec<Trial> {
    let stand_in = |test: Trial| {
        let why = why.to_owned();
        Trial::ignorable_test(test.name(), move || match rig::guests_required() {
            true => Err(Failed::from(why)),
            false => Ok(Completion::ignored_with(why)),
        })
    };
    tests.into_iter().map(stand_in).collect()
}
