//! The programs of published articles on KVM, built as in the articles and run unmodified.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGTERM, ENDED};
use crate::flat::{TIME_IS_UP, assert_prints, configured};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        article_kernel1_uses_a_whole_processor,
        article_kernel2_says_hello_and_then_uses_no_processor_time,
        article_kernel3_prints_its_string,
        article_hello_of_nasm_runs_in_4_kib,
        article_guest32_runs_without_any_table,
        article_guest64_runs_beside_our_tables,
        article_guest64_runs_with_page_tables_of_its_own,
    ]
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/micro lies in the workspace")
}

/// Path of the program that nasm builds.
fn nasm_hello() -> PathBuf {
    workspace().join("target/guests-nasm/hello")
}

/// Builds the program that needs nasm. In the rig it has been built already.
pub(crate) fn build() -> Result<(), String> {
    rig::packages::install(&["nasm"]).map_err(|error| error.to_string())?;
    let hello = nasm_hello();
    std::fs::create_dir_all(hello.parent().expect("it is in a directory"))
        .map_err(|error| error.to_string())?;
    let status = Command::new("nasm")
        .args(["-fbin", "resources/guests/building-a-hypervisor/hello.S", "-o"])
        .arg(&hello)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("nasm can't be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("nasm: {status}")) }
}

fn article_kernel1_uses_a_whole_processor() {
    let mut monitor = configured("kernel1").start();
    // The guest does nothing, so only its processor time can be observed. A guest that executed zeros would use as much.
    driver::wait_until("the guest runs", DEADLINE, || monitor.cpu_time() > Duration::from_millis(300));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!((monitor.stdout(), monitor.stderr().as_str()), (Vec::new(), ""));
    // The jump at the reset vector, then the loop: xor ax, ax; jmp.
    let mut monitor = configured("kernel1").args(["--step", "4", "--timeout", "5s"]).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    let steps = monitor.stderr();
    let lines: Vec<&str> = steps.lines().collect();
    assert!(lines[0].starts_with("step 1: cs f000 ip 0xfff0 ["), "{steps}");
    assert!(lines[1].starts_with("step 2: cs f000 ip 0x0 [31 c0 eb fe "), "{steps}");
    assert!(lines[3].starts_with("step 4: cs f000 ip 0x2 [eb fe "), "{steps}");
}

fn article_kernel2_says_hello_and_then_uses_no_processor_time() {
    let mut monitor = configured("kernel2").start();
    monitor.expect("Hello\n", DEADLINE);
    let before = monitor.cpu_time();
    monitor.expect_quiet(Duration::from_millis(500));
    let used = monitor.cpu_time() - before;
    assert!(used <= Duration::from_millis(50), "{used:?} in half a second");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn article_kernel3_prints_its_string() {
    assert_prints("kernel3", "Hello, World!\n", ENDED);
}

/// 29 bytes in the smallest possible memory, configured by flags only.
fn article_hello_of_nasm_runs_in_4_kib() {
    let mut monitor = Monitor::command(["--flat".as_ref(), nasm_hello().as_os_str()])
        .args(["--memory", "4K", "--trace-exits"])
        .start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stdout(), b"Hello, KVM!");
    let trace = monitor.stderr();
    assert_eq!(trace.matches(" out      0x03f8 width 1 count 1 ").count(), 11, "{trace}");
    assert_eq!(trace.lines().count(), 12, "{trace}");
}

/// In protected mode without descriptor tables, only with the initial segment registers: `"tables": false`.
fn article_guest32_runs_without_any_table() {
    assert_prints("guest32", "Hello, World!\n", ENDED);
}

/// Started as the article's monitor does: at 0, with 2 MiB of memory and the stack at its end. The config checks the value stored at
/// 0x400.
fn article_guest64_runs_beside_our_tables() {
    assert_prints("guest64", "Hello, World!\n", ENDED);
}

fn article_guest64_runs_with_page_tables_of_its_own() {
    assert_prints("guest64-tables", "Hello, World!\n", ENDED);
}
