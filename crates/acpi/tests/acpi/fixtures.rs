//! The files of tests/fixtures/acpi: a directory per machine, with bytes (.hex) and source (.dsl) of each
//! table.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use vmm_acpi::Table;

use crate::iasl;
use crate::machine::tables;

/// Processor counts of the recorded machines. The last has 45 processors whose APIC ids exceed 8 bits.
const MACHINES: [u32; 3] = [1, 4, 300];

/// Whether to rewrite the files, after an intended change.
pub(crate) fn blessing() -> bool {
    std::env::var_os("VMM_BLESS").is_some()
}

/// Rewrites all files.
pub(crate) fn bless() {
    iasl::install().unwrap();
    for cpus in MACHINES {
        for table in tables(cpus).iter() {
            let hex_path = path(cpus, table, "hex");
            fs::create_dir_all(hex_path.parent().unwrap()).unwrap();
            fs::write(hex_path, hex(table)).unwrap();
            fs::write(path(cpus, table, "dsl"), iasl::source(table)).unwrap();
        }
    }
}

/// The file of `table` for the machine with `cpus` processors.
pub(crate) fn path(cpus: u32, table: &Table, extension: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/acpi");
    fixtures.join(format!("{cpus}-cpus")).join(table.name.to_lowercase()).with_extension(extension)
}

/// The table as text: its address, then lines of 16 bytes with their offset.
pub(crate) fn hex(table: &Table) -> String {
    let mut text = format!("{} at {:#x}, {} bytes\n", table.name, table.gpa, table.bytes.len());
    for (index, line) in table.bytes.chunks(16).enumerate() {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:04x}  {}", 16 * index, bytes.join(" ")).unwrap();
    }
    text
}
