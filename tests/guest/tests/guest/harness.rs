//! Where the tests run.

use std::process::ExitCode;

use driver::monitor_program;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rig::{Assets, Error, Reason, Rig, Stage, in_rig, note, reason_for_rig};

/// How many guests run at once in the rig, whose processors share one thread of the host: a second guest would only slow the
/// first down.
const RIG_THREADS: usize = 1;

/// The tests of a module, under their names.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($test), || {
            $test();
            Ok(())
        })),*]
    };
}
pub(crate) use trials;

/// Runs the tests here or in the rig.
pub(crate) fn run(tests: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, tests).exit_code();
    }
    let place = match reason_for_rig() {
        None => prepare(),
        Some(reason) => match prepare().and_then(|()| run_in_rig(&reason)) {
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

/// Builds and fetches all that the tests use. In the rig there is no network, and nothing to do.
fn prepare() -> Result<(), String> {
    monitor_program();
    match in_rig() {
        true => Ok(()),
        false => Assets::here().prepare_all().map_err(|error| error.to_string()),
    }
}

/// Runs this program, with the same arguments, in the rig.
fn run_in_rig(reason: &Reason) -> Result<ExitCode, String> {
    note(&format!("{reason}: the tests run in the rig"));
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let argv = [own.into_os_string()].into_iter().chain(std::env::args_os().skip(1));
    match Rig::new(&Assets::here()).env("VMM_BIN", monitor_program()).run(argv) {
        Ok(outcome) => Ok(ExitCode::from(u8::try_from(outcome.exit_code).unwrap_or(1))),
        Err(error) if has_begun(&error) => {
            note(&format!("the tests didn't come to their end: {error}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether tests ran before this happened: then it isn't that they can't.
fn has_begun(error: &Error) -> bool {
    matches!(
        error,
        Error::Rig { stage: Stage::Command, .. } | Error::Timeout { .. } | Error::Interrupted { .. }
    )
}

/// The same tests, each ignored with the reason; or failed, where they are required.
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
