//! The tests named in docs/threat-model.md exist.

use std::path::{Path, PathBuf};

#[test]
fn tests_named_in_the_threat_model_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/threat-model.md")).expect("the document");
    let (_, section) = document.split_once("## A guest against its virtio devices").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another one follows");
    let code: String = ["pci", "virtio", "virtio-devices", "usernet"]
        .iter()
        .flat_map(|name| sources(&root.join("crates").join(name)))
        .map(|file| std::fs::read_to_string(file).expect("a file of ours"))
        .collect();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")).skip(1);
    let columns = rows.map(|row| row.rsplit_once(" | ").expect("a last column").1);
    let tests: Vec<_> = columns.flat_map(|tests| tests.split('`').skip(1).step_by(2)).collect();
    assert!(tests.len() > 50, "{tests:?}");
    let missing: Vec<_> = tests.into_iter().filter(|test| !code.contains(&format!("fn {test}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a crate of ours").map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(directories.iter().flat_map(|directory| sources(directory))).collect()
}
