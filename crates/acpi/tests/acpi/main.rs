//! Compares the tables with tests/fixtures/acpi and ACPICA's compiler, and reads them as a kernel does.

#![forbid(unsafe_code)]

/// The named tests of a module.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($test), || {
            $test();
            Ok(())
        })),*]
    };
}

mod fixtures;
mod golden;
mod iasl;
mod machine;
mod placement;
mod processors;
mod reader;
mod refusals;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if fixtures::blessing() && !arguments.list {
        fixtures::bless();
    }
    let tests: Vec<Trial> =
        [golden::tests(), iasl::tests(), placement::tests(), processors::tests(), refusals::tests()]
            .into_iter()
            .flatten()
            .collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}
