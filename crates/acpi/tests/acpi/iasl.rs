//! Runs every table through iasl, ACPICA's disassembler and compiler, whose table code is also Linux's.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::{Completion, Failed, Trial};
use vmm_acpi::Table;

use crate::fixtures::path;
use crate::machine::tables;

/// Header fields that iasl fills in itself: the checksum, and the compiler's id and revision.
const CHECKSUM: usize = 9;
const COMPILER: Range<usize> = 28..36;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("iasl_reads_and_rebuilds_tables_of_one_processor", || rebuilds_tables(1)),
        trial("iasl_reads_and_rebuilds_tables_of_four_processors", || rebuilds_tables(4)),
        trial("iasl_reads_and_rebuilds_tables_of_300_processors", || rebuilds_tables(300)),
        trial("recorded_sources_of_one_processor_compile_to_the_tables", || compiles_sources(1)),
        trial("recorded_sources_of_four_processors_compile_to_the_tables", || compiles_sources(4)),
        trial("recorded_sources_of_300_processors_compile_to_the_tables", || compiles_sources(300)),
    ]
}

/// A test that is ignored if iasl isn't available, or fails if tests are required.
fn trial(name: &'static str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::ignorable_test(name, || match install() {
        Ok(()) => {
            test();
            Ok(Completion::Completed)
        }
        Err(why) if rig::guests_required() => Err(Failed::from(why)),
        Err(why) => Ok(Completion::ignored_with(why)),
    })
}

/// Installs iasl if needed. One test at a time: apt takes a lock.
pub(crate) fn install() -> Result<(), String> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let install = || match rig::packages::find_program("iasl") {
        Some(_) => Ok(()),
        None => rig::packages::install(&["acpica-tools"]).map_err(|error| error.to_string()),
    };
    INSTALLED.get_or_init(install).clone()
}

fn rebuilds_tables(cpus: u32) {
    for table in tables(cpus).iter() {
        let source = source(table);
        assert_same(table, &compile(table.name, &source));
    }
}

fn compiles_sources(cpus: u32) {
    for table in tables(cpus).iter() {
        let source = fs::read_to_string(path(cpus, table, "dsl")).unwrap();
        assert_same(table, &compile(table.name, &source));
    }
}

/// The table's source without the first comment, which has the date, and the last, which has the bytes.
pub(crate) fn source(table: &Table) -> String {
    match table.name {
        "RSDP" => rsdp_source(&table.bytes),
        _ => disassemble(table),
    }
}

fn disassemble(table: &Table) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("table.aml"), &table.bytes).unwrap();
    let output = iasl(dir.path(), &["-d", "table.aml"]);
    assert!(!output.contains("Error") && !output.contains("Warning"), "{}: {output}", table.name);
    let text = fs::read_to_string(dir.path().join("table.dsl")).unwrap();
    let (_date, source) = text.split_once("*/\n").unwrap();
    let source = source.split("\nRaw Table Data").next().unwrap();
    source.lines().flat_map(|line| [line.trim_end(), "\n"]).collect::<String>().trim_start().to_owned()
}

/// The RSDP's source. iasl compiles RSDPs, with checksums of its own, but can't disassemble one: it expects
/// the common table header.
fn rsdp_source(bytes: &[u8]) -> String {
    let text = |range: Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    let number = |range: Range<usize>| -> String {
        bytes[range].iter().rev().map(|byte| format!("{byte:02X}")).collect()
    };
    [
        format!("[0008]         Signature : \"{}\"", text(0..8)),
        format!("[0001]          Checksum : {}", number(8..9)),
        format!("[0006]            Oem ID : \"{}\"", text(9..15)),
        format!("[0001]          Revision : {}", number(15..16)),
        format!("[0004]      RSDT Address : {}", number(16..20)),
        format!("[0004]            Length : {}", number(20..24)),
        format!("[0008]      XSDT Address : {}", number(24..32)),
        format!("[0001] Extended Checksum : {}", number(32..33)),
        format!("[0003]          Reserved : {}\n", number(33..36)),
    ]
    .join("\n")
}

fn compile(name: &str, source: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("table.dsl"), source).unwrap();
    let output = iasl(dir.path(), &["table.dsl"]);
    assert!(output.contains(" 0 Errors, 0 Warnings, 0 Remarks"), "{name}: {output}");
    fs::read(dir.path().join("table.aml")).unwrap()
}

/// Output of iasl, which fails only on errors.
fn iasl(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("iasl").args(arguments).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "iasl {arguments:?}: {text}");
    text
}

/// Asserts that iasl built the same table, ignoring the compiler's id.
fn assert_same(table: &Table, compiled: &[u8]) {
    let mut compiled = compiled.to_vec();
    assert_eq!(compiled.len(), table.bytes.len(), "length of {}", table.name);
    if !matches!(table.name, "RSDP" | "FACS") {
        compiled[CHECKSUM] = table.bytes[CHECKSUM];
        compiled[COMPILER].copy_from_slice(&table.bytes[COMPILER]);
    }
    assert_eq!(compiled, table.bytes, "{}", table.name);
}
