//! The snapshot of format 1 in tests/fixtures/snapshots/format-1. Later formats keep it, and the reader of format 2 still reads it.

use std::fs;
use std::path::{Path, PathBuf};

use vmm_snapshot::{NewSnapshot, Snapshot, verify};

use crate::machine::{Hint, Port, Timer, hint, manifest, port, timer, writer};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/snapshots/format-1")
}

#[test]
fn format_1_is_read() {
    let Snapshot { mut state, .. } = Snapshot::open(&golden()).unwrap();
    assert_eq!(*state.manifest(), manifest(&writer()));
    assert_eq!(state.take::<Timer>(0).unwrap(), timer());
    assert_eq!(state.take::<Port>(2).unwrap(), port());
    assert_eq!(state.take::<Hint>(0).unwrap(), hint());
    state.finish().unwrap();
    let verified = verify(&golden()).unwrap();
    let (valid, rest) =
        verified.to_string().split_once(" (").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(valid, "valid: 3 sections in 1356 bytes of state, 16 KiB of memory");
    assert!(rest.ends_with(" stored), 0 disks"), "{rest}");
}

#[test]
fn format_1_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("format-1");
    let new = NewSnapshot::create(&destination).unwrap();
    let files = new.files().unwrap();
    let manifest = manifest(&writer());
    files.start_memory(&manifest.memory).unwrap().write(4096, &[0x5a; 4096]).unwrap();
    files.finish(writer(), &manifest).unwrap();
    new.publish().unwrap();
    for name in ["manifest.json", "state", "memory"] {
        let written = fs::read(destination.join(name)).unwrap();
        if std::env::var_os("VMM_BLESS").is_some() {
            fs::create_dir_all(golden()).unwrap();
            fs::write(golden().join(name), &written).unwrap();
        }
        let expected = fs::read(golden().join(name)).unwrap();
        assert!(
            written == expected,
            "{name} differs from tests/fixtures/snapshots/format-1: that needs format 2"
        );
    }
}
