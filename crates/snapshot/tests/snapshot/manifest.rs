//! A manifest's fields.

use serde_json::{Value, json};
use vmm_snapshot::{DiskContents, Manifest};

use crate::machine::{disk, manifest, writer};

/// The manifest with another value at a JSON pointer, read again.
fn with(pointer: &str, value: Value) -> String {
    let mut json = serde_json::to_value(manifest(&writer())).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    Manifest::parse(json.to_string().as_bytes()).map_or_else(|error| error.to_string(), |_| "read".to_owned())
}

#[test]
fn manifest_without_a_change_is_read() {
    assert_eq!(with("/program", json!("other")), "read");
}

#[test]
fn two_disks_of_one_id_are_refused() {
    let disks =
        [disk("a", DiskContents::Stamp(String::new())), disk("a", DiskContents::Stamp(String::new()))];
    assert_eq!(with("/disks", json!(disks)), "the manifest: disk \"a\" is there twice");
}

fn saved_at(path: &str) -> String {
    with("/disks", json!([disk("a", DiskContents::Saved(path.to_owned()))]))
}

#[test]
fn disk_saved_in_the_snapshot_is_below_disks() {
    assert_eq!(saved_at("disks/a"), "read");
    assert_eq!(saved_at("disks/..a"), "read");
    let outside = [
        "",
        "a",
        "/disks/a",
        "disks",
        "disks/",
        "disks/.",
        "disks/..",
        "disks/../a",
        "disks/a/b",
        "disks/a\0",
    ];
    for path in outside {
        let message = format!("the manifest: disks: {path:?} is not a path of a file in the snapshot");
        assert_eq!(saved_at(path), message);
    }
}

#[test]
fn two_disks_saved_at_one_path_are_refused() {
    let saved = || DiskContents::Saved("disks/a".to_owned());
    let message = "the manifest: disks: \"disks/a\" is there twice";
    assert_eq!(with("/disks", json!([disk("a", saved()), disk("b", saved())])), message);
}

#[test]
fn section_called_manifest_is_refused() {
    let section = json!([{"kind": "manifest", "instance": 0, "version": 1}]);
    assert_eq!(with("/sections", section), "section manifest/0 is there twice");
}

#[test]
fn section_of_no_kind_is_refused() {
    let message = with("/sections/0/kind", json!("Dev Timer"));
    assert!(message.starts_with("the manifest: \"Dev Timer\" is not a kind of section"), "{message}");
}

#[test]
fn id_that_is_no_id_is_refused() {
    let message = with("/id", json!("12"));
    assert!(message.starts_with("the manifest: \"12\" is not an id: 32 digits of 0-9 and a-f"), "{message}");
}

#[test]
fn config_that_is_no_object_is_refused() {
    let message = with("/config", json!([]));
    assert!(message.starts_with("the manifest: invalid type: sequence, expected a map"), "{message}");
}

#[test]
fn manifest_of_a_mebibyte_is_the_longest() {
    let mut manifest = manifest(&writer());
    let rest = manifest.to_json().unwrap().len();
    manifest.program = "x".repeat((1 << 20) - rest + manifest.program.len());
    let text = manifest.to_json().unwrap();
    assert_eq!(text.len(), 1 << 20);
    assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);

    manifest.program.push('x');
    let message = "the manifest has 1048577 bytes, but one has at most 1048576";
    assert_eq!(manifest.to_json().unwrap_err().to_string(), message);
    let error = Manifest::parse(format!("{text} ").as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn json_of_great_depth_is_refused() {
    let text = "[".repeat(100_000);
    let error = Manifest::parse(format!("{{\"format\": 1, \"config\": {text}").as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("the manifest: "), "{error}");
}
