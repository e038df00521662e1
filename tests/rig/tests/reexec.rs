//! A test binary without the standard harness ends up where Linux guests can run, with its arguments and its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use rig::{Place, can_run_linux, run_here_or_in_rig};

/// Tells the inner run, whose exit code must come back, from a run without arguments.
const INNER: &str = "--inner";
const INNER_CODE: u8 = 42;

fn main() -> ExitCode {
    let is_inner = std::env::args().any(|word| word == INNER);
    match run_here_or_in_rig([OsString::from(INNER)]) {
        Ok(Place::Here) => {
            can_run_linux().expect("the rig has a KVM that runs Linux");
            println!("test reexec_arrives_where_guests_run ... ok");
            if is_inner { ExitCode::from(INNER_CODE) } else { ExitCode::SUCCESS }
        }
        Ok(Place::Rig(code)) => {
            assert_eq!(code, i32::from(INNER_CODE));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
