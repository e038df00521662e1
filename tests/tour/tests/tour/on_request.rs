//! The manual's commands that take many minutes or need another toolchain. Their tests are ignored unless asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use tour_tests::{Command, documented};

use crate::checkout::{Checkout, workspace};

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_kind("manual").with_ignored_flag(true)
    };
    vec![
        trial("bench_commands_run_to_their_end", bench_commands_run_to_their_end),
        trial("fuzz_commands_run_to_their_end", fuzz_commands_run_to_their_end),
    ]
}

const BENCH_PAGE: &str = "docs/performance.md";
const FUZZ_PAGE: &str = "docs/testing.md";
/// How the commands begin.
pub(crate) const BENCH: &str = "cargo xtask bench";
pub(crate) const FUZZ: &str = "cargo +nightly fuzz";

/// By the beginning of a benchmark's command: arguments that make it short, and lines of its output. The first that fits counts.
const BENCHES: [(&str, &str, &[&str]); 5] = [
    ("cargo xtask bench exits", "--rounds 1", &["MMIO:", "string output:", "medians of all rounds"]),
    ("cargo xtask bench block", "--rounds 1 --seconds 1", &["vmm-bin", "medians of 1 rounds"]),
    (
        "cargo xtask bench net",
        "--rounds 1 --seconds 1 --only user",
        &["vmm-bin, user mode", "share of veth's"],
    ),
    (
        "cargo xtask bench memory",
        "--rounds 1",
        &["each further vCPU", "each block device", "medians of 1 rounds"],
    ),
    // One good run of one.
    ("cargo xtask bench", "--runs 1", &["vmm-bin, ELF", " 1/1\n", "release binary"]),
];

/// A monitor with other arguments than this one's, as the page's example of a peer has them.
const PEER: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --mem) memory=${2}M; shift ;;
        --kernel) kernel=$2; shift ;;
        --initrd) initrd=$2; shift ;;
        --cmdline) cmdline=$2; shift ;;
    esac
    shift
done
exec PROGRAM --kernel "$kernel" --initrd "$initrd" --cmdline "$cmdline" --memory "$memory"
"#;

/// The commands of a page that begin so.
fn commands(page: &str, start: &str) -> Result<Vec<Command>, Failed> {
    let all = documented(&Checkout::here().read(page)?);
    let some: Vec<_> = all.into_iter().filter(|command| command.script.starts_with(start)).collect();
    if some.is_empty() {
        Err(format!("{page} has no command that begins with {start}").into())
    } else {
        Ok(some)
    }
}

/// The page's command with fewer runs. A number that the page gives is replaced.
fn shortened(script: &str, arguments: &str) -> String {
    let mut words: Vec<&str> = script.split(' ').collect();
    let flags: Vec<&str> = arguments.split(' ').step_by(2).collect();
    while let Some(at) = words.iter().position(|word| flags.contains(word)) {
        words.drain(at..at + 2);
    }
    words.insert(words.iter().position(|word| word.starts_with("--")).unwrap_or(words.len()), arguments);
    words.join(" ")
}

fn bench_commands_run_to_their_end() -> Result<(), Failed> {
    let peer = workspace().join("target/peer-of-test");
    let program = driver::monitor_program();
    fs::write(&peer, PEER.replace("PROGRAM", &program.to_string_lossy()))?;
    fs::set_permissions(&peer, fs::Permissions::from_mode(0o755))?;
    for Command { script, .. } in commands(BENCH_PAGE, BENCH)? {
        let (_, arguments, lines) = BENCHES
            .iter()
            .find(|(start, ..)| script.starts_with(start))
            .expect("the last one fits every command");
        let script = with_peer(&shortened(&script, arguments), &peer);
        let printed = expect_lines(&script, lines)?;
        // A monitor of which no run was good.
        if printed.contains(" 0/1\n") {
            return Err(format!("$ {script}\n{printed}").into());
        }
    }
    Ok(())
}

/// The page names programs that nobody has.
fn with_peer(script: &str, peer: &Path) -> String {
    let peer = peer.to_string_lossy();
    script.replace("/opt/other", &peer).replace(
        "NAME=COMMAND with {kernel} {initrd} {cmdline}",
        &format!(
            "NAME={peer} --kernel {{kernel}} --initrd {{initrd}} --cmdline {{cmdline}} --mem {{mem_mib}}"
        ),
    )
}

/// The first command of the page goes on until it finds something, and stands for all targets.
fn fuzz_commands_run_to_their_end() -> Result<(), Failed> {
    let page = Checkout::here().read(FUZZ_PAGE)?;
    for Command { script, .. } in commands(FUZZ_PAGE, FUZZ)? {
        if script.contains("-max_total_time=") {
            expect_lines(&script, &["Done "])?;
            continue;
        }
        let (start, _) = script.rsplit_once(' ').ok_or("no target")?;
        for target in targets()? {
            if !page.contains(&target) {
                return Err(format!("{FUZZ_PAGE} doesn't name the fuzz target {target}").into());
            }
            expect_lines(&format!("{start} {target} -- -max_total_time=10"), &["Done "])?;
        }
    }
    Ok(())
}

fn targets() -> Result<Vec<String>, Failed> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace().join("fuzz/fuzz_targets"))? {
        targets.push(Path::new(&entry?.file_name()).with_extension("").to_string_lossy().into_owned());
    }
    targets.sort();
    Ok(targets)
}

/// Runs a command, which must succeed and print these texts. Returns what it prints.
fn expect_lines(script: &str, texts: &[&str]) -> Result<String, Failed> {
    rig::note(&format!("$ {script}"));
    let printed = Checkout::here().print(script)?;
    rig::note(&printed);
    match texts.iter().find(|text| !printed.contains(**text)) {
        Some(text) => Err(format!("$ {script}\ndoesn't print {text:?} but\n{printed}").into()),
        None => Ok(printed),
    }
}
