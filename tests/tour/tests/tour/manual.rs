//! The commands of README.md and of the manual in docs.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use tour_tests::{Command, documented, resembles};

use crate::PAGES;
use crate::checkout::{Checkout, workspace};
use crate::{need, on_request};

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(name, test).with_kind("manual");
    vec![
        trial("commands_print_what_the_pages_show", commands_print_what_the_pages_show),
        trial("commands_that_are_not_run_here_have_a_test", commands_that_are_not_run_here_have_a_test),
    ]
}

/// What a command begins with that a bare-metal guest suffices for. It is run from the page.
const RUN: [&str; 5] = [
    "vmm-bin --flat ",
    "vmm-bin --config resources/configs/guests/",
    "vmm-bin snapshot ",
    "cargo run ",
    "cargo xtask guests",
];

/// The files that the commands name.
const FILES: [(&str, &str); 6] = [
    ("resources", "resources"),
    ("target", "target"),
    ("tests", "tests"),
    ("hello", "target/guests/hello-real.bin"),
    ("boot.bin", "target/guests/reset-hello.bin"),
    ("guest.bin", "target/guests/answer-long.bin"),
];

/// Where else a command is run.
enum Where {
    /// This test runs it, or the same with other files and flags.
    Test(&'static str),
    /// It is in this file, whose commands are run.
    File(&'static str),
}
use Where::{File, Test};

/// What commands contain that need a whole Linux, root or more time, and what runs them. The first that fits counts.
const ELSEWHERE: &[(&str, Where)] = &[
    ("cargo xtask test", File(".ci/run")),
    ("cargo xtask demo", File("docs/tour.md")),
    ("cargo xtask rig", File("docs/tour.md")),
    ("cargo xtask linux", File("docs/tour.md")),
    ("vmm-bin doctor", Test("package_is_installed_in_a_fresh_debian_and_the_program_runs")),
    ("+crt-static", File("tests/driver/src/program.rs")),
    ("target/demo/vm.json --check", Test("session_linux_sees_the_planned_machine")),
    ("--serial pty", Test("output_to_pty_is_a_shell")),
    ("ctl vm.sock snapshot", Test("ctl_snapshot_is_complete_and_says_what_is_in_it")),
    ("vmm-bin --config vm.json --control vm.sock", Test("control_has_status_pause_resume_and_quit")),
    ("cp --preserve=timestamps", Test("snapshot_goes_on_with_a_copy_of_its_disk_from_that_time")),
    ("vmm-bin restore", Test("snapshot_of_a_running_machine_is_continued_and_the_machine_goes_on")),
    ("vmm-bin ctl", Test("control_has_status_pause_resume_and_quit")),
    ("--cpus 4", Test("power_four_processors_run_and_take_their_interrupts")),
    ("--config target/demo/vm.json", Test("session_on_terminal_keys_do_what_they_say")),
    ("vmm-bin vmlinuz initrd.gz", Test("session_on_terminal_keys_do_what_they_say")),
    ("rootfs --busybox", Test("rootfs_busybox_keeps_what_was_written_and_stays_clean")),
    ("rootfs --debian", Test("rootfs_debian_with_its_own_initramfs_reaches_its_login")),
    ("rootfs --fio", Test("fio_one_queue_verifies")),
    ("socat", Test("vsock_agents_talk_in_both_directions")),
    ("ip tuntap", Test("net_carries_pings_and_a_mebibyte_both_ways")),
    ("ip addr", Test("net_carries_pings_and_a_mebibyte_both_ways")),
    ("ip link", Test("net_carries_pings_and_a_mebibyte_both_ways")),
    ("passt --socket", Test("passt_offers_an_address")),
    ("cargo test -p", File(".ci/run")),
    (
        "cargo build -p vmm-vcpu --example linux_shell",
        Test("example_linux_shell_runs_what_is_typed_and_restores_the_terminal"),
    ),
    (on_request::BENCH, Test("bench_commands_run_to_their_end")),
    (on_request::FUZZ, Test("fuzz_commands_run_to_their_end")),
];

/// README.md and the pages of docs that aren't taken step by step, with their commands.
fn pages() -> Result<Vec<(String, Vec<Command>)>, Failed> {
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(workspace().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && !PAGES.contains(&name.as_str()) {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    let page = |path: String| Ok((path.clone(), documented(&Checkout::here().read(&path)?)));
    paths.into_iter().map(page).collect()
}

fn is_run_here(command: &Command) -> bool {
    RUN.iter().any(|start| command.script.starts_with(start))
}

fn commands_print_what_the_pages_show() -> Result<(), Failed> {
    let here = Checkout::here();
    let guests = Command { script: "cargo xtask guests >/dev/null".to_owned(), expected: Vec::new() };
    here.take(&[guests])?;
    let here = here.with_files(&FILES)?;
    for (path, commands) in pages()? {
        let commands: Vec<Command> = commands.into_iter().filter(is_run_here).collect();
        need::of(&commands)?;
        // A block without output only shows how to call it.
        let is_as =
            |expected: &[String], printed: &[&str]| expected.is_empty() || resembles(expected, printed);
        here.take_if(&commands, is_as).map_err(|failed| page_failed(&path, &failed))?;
    }
    Ok(())
}

fn page_failed(path: &str, failed: &Failed) -> Failed {
    format!("{path}: {}", failed.message().unwrap_or("failed")).into()
}

fn commands_that_are_not_run_here_have_a_test() -> Result<(), Failed> {
    let sources = sources(workspace())?;
    let mut unused: Vec<&str> = ELSEWHERE.iter().map(|(part, _)| *part).collect();
    for (path, commands) in pages()? {
        for Command { script, .. } in commands.iter().filter(|command| !is_run_here(command)) {
            let Some((part, place)) = ELSEWHERE.iter().find(|(part, _)| script.contains(part)) else {
                return Err(format!("{path}: no test runs this: $ {script}").into());
            };
            unused.retain(|other| other != part);
            let is_there = match place {
                Test(name) => sources.contains(&format!("fn {name}")),
                // CI runs `cargo xtask test`, and that every test of the workspace.
                File(".ci/run") => Checkout::here().read(".ci/run")?.contains("cargo xtask test"),
                File(file) => Checkout::here().read(file)?.contains(part),
            };
            if !is_there {
                return Err(format!("{path}: what should run this is gone: $ {script}").into());
            }
        }
    }
    match unused.first() {
        Some(part) => Err(format!("no page has a command with {part:?} any more").into()),
        None => Ok(()),
    }
}

/// The sources of all tests, in one text.
fn sources(root: &Path) -> Result<String, Failed> {
    let mut text = String::new();
    let mut directories: Vec<_> =
        ["tests", "vmm-bin/tests", "crates", "xtask"].map(|path| root.join(path)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path)?;
            }
        }
    }
    Ok(text)
}
