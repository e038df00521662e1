//! docs/adding-a-device.md shows the code as it is, and its promises are true.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The document's Rust blocks: the file that each is from, and its code.
fn excerpts(document: &str) -> Vec<(&str, &str)> {
    let blocks = document.split("```rust\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").expect("a block ends").0);
    let parts = blocks.map(|block| block.split_once('\n').expect("a block has lines"));
    parts.map(|(path, code)| (path.strip_prefix("// ").expect("a block names its file"), code)).collect()
}

#[test]
fn excerpts_of_the_document_are_in_the_files() {
    let document = text("docs/adding-a-device.md");
    let excerpts = excerpts(&document);
    assert_eq!(excerpts.len(), 14);
    for (path, code) in excerpts {
        assert!(text(path).contains(code), "{path} doesn't have this, as the document says:\n{code}");
    }
}

#[test]
fn rng_is_one_file_of_less_than_100_lines() {
    let file = text("crates/virtio-devices/src/rng.rs");
    let lines = file.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    assert!(lines < 100, "{lines} lines");
}

/// Only its module, its re-export, and its row in the table.
#[test]
fn rng_is_named_in_no_other_file_of_the_program() {
    let mentions = text("crates/virtio-devices/src/lib.rs").matches("Rng").count();
    assert_eq!(mentions, 2, "pub use, and the table");
    assert_unknown(&["virtio", "machine", "config", "kvm", "acpi"], &["Rng", "\"rng\""]);
}

/// Its module, its name for others, and its line in the table. The config knows those that have flags, by their `type`.
#[test]
fn legacy_devices_are_named_in_no_other_file_of_the_program() {
    let mentions = text("crates/devices/src/lib.rs").matches("PvPanic").count();
    assert_eq!(mentions, 2, "pub use, and the table");
    let types = ["PvPanic", "I8042", "Rtc::", "Uart", "PowerManagement", "DebugConsole::", "DebugExit::"];
    let names = ["\"pvpanic", "\"debug-exit\"", "\"debug-console\"", "0x505", "0x3f8"];
    assert_unknown(&["machine", "kvm", "arch"], &[&types[..], &names].concat());
    assert_unknown(&["config"], &["PvPanic", "I8042", "Rtc", "Uart", "PowerManagement", "\"pvpanic"]);
}

/// No code of these crates has any of these words.
fn assert_unknown(crates: &[&str], words: &[&str]) {
    for crate_name in crates {
        for file in sources(&root().join("crates").join(crate_name).join("src")) {
            let source = std::fs::read_to_string(&file).expect("a file of ours");
            let program = source.split("#[cfg(test)]").next().expect("there is a first part");
            let code = program.lines().filter(|line| !line.trim_start().starts_with("//"));
            let mention = code.into_iter().find(|line| words.iter().any(|word| line.contains(word)));
            assert_eq!(mention, None, "{}", file.display());
        }
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a crate of ours").map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_of_program = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs")
    };
    let files = files.into_iter().filter(is_of_program);
    files.chain(directories.iter().flat_map(|directory| sources(directory))).collect()
}
