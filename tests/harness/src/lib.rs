#![forbid(unsafe_code)]

//! The main function of test binaries that need KVM: the tests run here, or all of them in the rig, or each
//! is reported with the reason why it can't run.
//!
//! The standard harness can't ignore a test at run time; this one is libtest-mimic, with the same command
//! line.

mod parts;
mod setting;
mod user;

use std::process::ExitCode;

use driver::{AGENT_BIN, VMM_BIN, agent_program, monitor_program};
pub use libtest_mimic;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rig::{Assets, Error, Reason, Rig, Stage, in_rig, note};

use crate::parts::{Part, parts};
pub use crate::setting::Setting;

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

/// Runs the tests here or in the rig, those of each [`Setting`] in its own process. `prepare` builds and fetches everything they
/// use besides the monitor; it isn't called in the rig, which can neither access a network nor build anything.
pub fn run(tests: Vec<Trial>, needs: Needs, prepare: impl FnOnce() -> Result<(), String>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, tests).exit_code();
    }
    build(needs);
    let prepared = if in_rig() || driver::is_as_user() { Ok(()) } else { prepare() };
    let part = match (Part::of_this_process(), &prepared) {
        (Some(part), _) => Some(part),
        (None, Err(_)) => None,
        (None, Ok(())) => {
            let is_for_rig = |setting| reason_for_rig(needs, setting).is_some();
            match &parts(&tests, &arguments, is_for_rig)[..] {
                [] => Some(Part::whole(Setting::Usual)),
                [part] if part.setting == Setting::Usual => Some(*part),
                parts => return parts::run(parts),
            }
        }
    };
    let tests = match part {
        Some(part) => part.of(tests),
        None => tests,
    };
    let part = part.unwrap_or(Part::whole(Setting::Usual));
    let place = match reason_for_rig(needs, part.setting) {
        None => prepared,
        Some(reason) => match prepared.and_then(|()| run_in_rig(&reason, needs, part)) {
            Ok(code) => return code,
            Err(why) => Err(format!("{reason}, and the rig doesn't run either: {why}")),
        },
    };
    let tests = match place.and_then(|()| enter(part)) {
        Ok(()) => tests,
        Err(why) => without(tests, &why),
    };
    if in_rig() {
        arguments.test_threads.get_or_insert(RIG_THREADS);
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Why the tests of a setting don't run here.
fn reason_for_rig(needs: Needs, setting: Setting) -> Option<String> {
    if in_rig() {
        return None;
    }
    if std::env::var_os(USE_RIG).is_some_and(|value| value == "1") {
        return Some(format!("{USE_RIG} is set"));
    }
    match (rig::reason_for_rig(), needs) {
        (None, _) | (Some(Reason::SoftwareKvm), Needs::AnyKvm) => setting.reason_for_rig().map(str::to_owned),
        (Some(reason), _) => Some(reason.to_string()),
    }
}

/// Makes this process what a part's setting requires. If root is to become a user, this program starts again.
fn enter(part: Part) -> Result<(), String> {
    match part.setting {
        Setting::AsUser if user::is_root() => Err(user::run_again_as_user(part)),
        Setting::AsUser | Setting::Usual | Setting::NoLandlock | Setting::NewestLibc => Ok(()),
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
fn run_in_rig(reason: &str, needs: Needs, part: Part) -> Result<ExitCode, String> {
    note(&format!("{reason}: the tests run in the rig"));
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let argv = [own.into_os_string()].into_iter().chain(std::env::args_os().skip(1));
    let mut rig = Rig::new(&Assets::here()).env(VMM_BIN, monitor_program());
    rig = rig.kernel_parameters(part.setting.kernel_parameters());
    if needs == Needs::Linux {
        rig = rig.env(AGENT_BIN, agent_program());
    }
    for (name, value) in part.variables() {
        rig = rig.env(name, value);
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
        let stand_in = Trial::ignorable_test(test.name(), move || match rig::guests_required() {
            true => Err(Failed::from(why)),
            false => Ok(Completion::ignored_with(why)),
        });
        stand_in.with_kind(test.kind()).with_ignored_flag(test.has_ignored_flag())
    };
    tests.into_iter().map(stand_in).collect()
}
