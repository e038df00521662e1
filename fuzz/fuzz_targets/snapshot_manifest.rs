//! The manifest of a snapshot: arbitrary text, and a valid one with parts of it replaced.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vmm_fuzz::snapshot::manifest;
use vmm_snapshot::{MAX_MANIFEST_LEN, Manifest, Section, SectionKind, describe, describe_json};

fuzz_target!(|input: (bool, Vec<u8>, Vec<(u16, u8, Vec<u8>)>)| {
    let (is_arbitrary, arbitrary, patches) = input;
    let mut text = if is_arbitrary { arbitrary } else { valid() };
    for (at, removed, inserted) in patches {
        let at = usize::from(at) % (text.len() + 1);
        let end = text.len().min(at + usize::from(removed));
        text.splice(at..end, inserted);
    }
    match Manifest::parse(&text) {
        Ok(manifest) => check(&manifest),
        Err(error) => {
            // The length of the message must stay in proportion to that of the text.
            let len = error.to_string().len();
            assert!(len > 0 && len < 4096 + 8 * text.len(), "{len} bytes of message");
        }
    }
});

fn valid() -> Vec<u8> {
    let kind = SectionKind::new("dev.0").expect("a kind");
    let sections = vec![Section { kind, instance: 0, version: 1 }, Section { kind, instance: 1, version: 2 }];
    manifest(sections).to_json().expect("a valid manifest").into_bytes()
}

fn check(manifest: &Manifest) {
    let text = describe(manifest);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let line = describe_json(manifest);
    assert_eq!(line.find(char::is_control), Some(line.len() - 1), "{line:?}");
    if let Ok(written) = manifest.to_json() {
        assert!(written.len() as u64 <= MAX_MANIFEST_LEN);
        let read = Manifest::parse(written.as_bytes()).expect("what was written can be read");
        // Fractions are read as the nearest that fits, or one beside it.
        if !manifest.config.values().any(has_fraction) {
            assert_eq!(read, *manifest);
        }
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(values) => values.values().any(has_fraction),
        _ => false,
    }
}
