//! Assembles the bare-metal guests of resources/guests with the binutils, which are wherever a linker is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guests: file, source, and what the assembler is told.
const GUESTS: [(&str, &str, &[&str]); 10] = [
    ("echo", "echo.S", &[]),
    ("halt", "halt.S", &[]),
    ("crash", "crash.S", &[]),
    ("memory", "memory.S", &[]),
    ("params", "params.S", &[]),
    ("flood", "flood.S", &["LINES=0"]),
    ("flood-1000", "flood.S", &["LINES=1000"]),
    ("flood-20000", "flood.S", &["LINES=20000"]),
    // 64 KiB: 65536 bytes.
    ("hash-64k", "hash.S", &["COUNT=65536", "CHATTY=0"]),
    ("hash-64k-chatty", "hash.S", &["COUNT=65536", "CHATTY=1"]),
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let sources =
        manifest.ancestors().nth(2).expect("tests/micro lies in the workspace").join("resources/guests");
    println!("cargo::rerun-if-changed={}", sources.display());
    for (name, source, symbols) in GUESTS {
        let (object, elf) = (out.join(name).with_extension("o"), out.join(name).with_extension("elf"));
        let mut assembler = Command::new("as");
        assembler.arg("--64").arg("-I").arg(&sources).arg("-o").arg(&object).arg(sources.join(source));
        run(assembler.args(symbols.iter().flat_map(|symbol| ["--defsym", symbol])), source);
        run(&mut linker(&sources, &object, &elf), source);
    }
}

fn linker(sources: &Path, object: &Path, elf: &Path) -> Command {
    let mut linker = Command::new("ld");
    linker.args(["-m", "elf_x86_64", "-z", "noexecstack", "-T"]).arg(sources.join("guest.ld"));
    linker.arg("-o").arg(elf).arg(object);
    linker
}

fn run(command: &mut Command, source: &str) {
    let program = command.get_program().to_owned();
    match command.status() {
        Ok(status) => assert!(status.success(), "{source}: {program:?}: {status}"),
        Err(error) => panic!("{source}: {program:?}: {error}; install the binutils"),
    }
}
