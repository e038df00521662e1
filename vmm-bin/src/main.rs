//! The program's entry point; the code is in the library [`vmm_bin`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm_bin::main()
}
