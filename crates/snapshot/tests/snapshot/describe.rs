//! A manifest as text.

use vmm_snapshot::{DiskContents, Manifest, describe, describe_json};

use crate::machine::{disk, manifest, writer};

#[test]
fn description_names_what_the_snapshot_is_of() {
    let disks = vec![
        disk("root", DiskContents::Stamp("s".to_owned())),
        disk("b", DiskContents::Saved("disks/b".to_owned())),
    ];
    let manifest = Manifest { disks, ..manifest(&writer()) };
    let lines = [
        "snapshot  30313233343536373839616263646566",
        "parent    00000000000000000000000000000000",
        "taken     2024-02-29T12:34:56Z",
        "by        vmm-bin 0.1.0, format 1",
        "processor GenuineIntel, family 6, model 85, stepping 7",
        "TSC       2500000 kHz",
        "kernel    Linux 6.1.0-56-amd64",
        "memory    16 KiB in 1 region",
        "          0x0..0x4000, 16 KiB at offset 0x0",
        "disks     root: /srv/root.img, 1 GiB, not in the snapshot, stamp s",
        "          b: /srv/root.img, 1 GiB, saved as disks/b",
        "sections  dev.timer/0 version 1",
        "          virtio.port/2 version 2",
        "          dev.hint/0 version 1",
        "",
    ];
    assert_eq!(describe(&manifest), lines.join("\n"));
}

#[test]
fn description_without_parent_disks_and_sections() {
    let manifest = Manifest { parent: None, disks: Vec::new(), sections: Vec::new(), ..manifest(&writer()) };
    let text = describe(&manifest);
    assert!(!text.contains("parent"), "{text}");
    assert!(text.ends_with("disks     none\nsections  none\n"), "{text}");
}

/// U+009B begins a terminal's command, as an escape and a bracket do.
#[test]
fn description_has_nothing_that_a_terminal_obeys() {
    let evil = "\u{1b}[2J\u{9b}2J\n\u{202e}";
    let mut manifest = manifest(&writer());
    for text in
        [&mut manifest.program, &mut manifest.version, &mut manifest.host.vendor, &mut manifest.host.kernel]
    {
        evil.clone_into(text);
    }
    manifest.disks = vec![disk(evil, DiskContents::Stamp(evil.to_owned()))];
    manifest.disks[0].path = evil.to_owned();
    let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    let text = describe(&manifest);
    assert!(!text.contains(obeyed), "{text:?}");
    assert_eq!(text.lines().count(), 13, "{text}");
}

#[test]
fn json_is_the_manifest_in_one_line_without_control_characters() {
    let mut manifest = manifest(&writer());
    manifest.program = "a\u{9b}\u{7f}\n\u{1b}".to_owned();
    let line = describe_json(&manifest);
    assert_eq!(line.find(char::is_control), Some(line.len() - 1), "{line:?}");
    assert_eq!(Manifest::parse(line.as_bytes()).unwrap(), manifest);
}
