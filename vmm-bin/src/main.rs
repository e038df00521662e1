//! The program; [`vmm_bin`] has its code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm_bin::main()
}
