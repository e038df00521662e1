//! The program with the feature `escape-hooks`, for the tests of its sandbox.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm_bin::main()
}
