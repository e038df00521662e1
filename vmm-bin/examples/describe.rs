//! Writes what describes the program into a directory: its man page and completions for bash, zsh and fish.
//! `cargo xtask dist` runs it.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).expect("a directory as the argument").into();
    clap_mangen::generate_to(vmm_bin::command().disable_help_subcommand(true), &directory)?;
    // clap_mangen shows a hidden argument in the synopsis.
    let page = directory.join("vmm-bin.1");
    let text = fs::read_to_string(&page)?;
    fs::write(&page, text.replace(" [\\fIBARE_FURTHER\\fR]", ""))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut vmm_bin::command(), "vmm-bin", &directory)?;
    }
    Ok(())
}
