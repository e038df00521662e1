//! Where the tests run, and what they have in common.

use std::process::ExitCode;

use driver::{Launch, Monitor, monitor_program};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rig::{Assets, Reason, Rig};

/// Bytes of guest memory of [`boot`].
pub(crate) const RAM_LEN: u64 = 32 << 20;

/// Exit codes, as in `vmm-bin --help`.
pub(crate) const ENDED: i32 = 0;
pub(crate) const BAD_CONFIG: i32 = 3;
pub(crate) const HOST_CANT: i32 = 4;
pub(crate) const CRASHED: i32 = 5;
pub(crate) const BY_SIGHUP: i32 = 128 + 1;
pub(crate) const BY_SIGINT: i32 = 128 + 2;
pub(crate) const BY_SIGPIPE: i32 = 128 + 13;
pub(crate) const BY_SIGTERM: i32 = 128 + 15;

/// A machine with this kernel and 32 MiB.
pub(crate) fn boot(kernel: &str) -> Launch {
    Monitor::command(["--kernel", kernel, "--memory", "32M"])
}

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
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, tests).exit_code();
    }
    // Here also for the rig, which has no network to fetch what a build needs.
    monitor_program();
    match rig::reason_for_rig() {
        // A software KVM runs these guests, if not Linux.
        None | Some(Reason::SoftwareKvm) => libtest_mimic::run(&arguments, tests).exit_code(),
        Some(reason) => in_rig(&reason).unwrap_or_else(|why| {
            let why = format!("{reason}, and the rig doesn't run either: {why}");
            libtest_mimic::run(&arguments, without(tests, &why)).exit_code()
        }),
    }
}

/// Runs this program, with the same arguments, in the rig.
fn in_rig(reason: &Reason) -> Result<ExitCode, String> {
    rig::note(&format!("{reason}: the tests run in the rig"));
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let argv = [own.into_os_string()].into_iter().chain(std::env::args_os().skip(1));
    let outcome = Rig::new(&Assets::here()).env("VMM_BIN", monitor_program()).run(argv);
    let code = outcome.map_err(|error| error.to_string())?.exit_code;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
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
