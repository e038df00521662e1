//! What is written is read.

use proptest::prelude::*;
use vmm_snapshot::{
    DiskContents, FORMAT, FormatError, MAX_SECTION_LEN, Manifest, MemoryLayout, PAGE_LEN, SavedDisk,
    SavedHost, Section, SectionKind, SnapshotId, StateFile, StateWriter, Timestamp,
};

use crate::machine::{Hint, Port, Timer, hint, manifest, port, state, timer, writer};

#[test]
fn states_are_taken_as_they_were_added() {
    let mut file = StateFile::parse(state(writer())).unwrap();
    assert_eq!(file.take::<Timer>(0).unwrap(), timer());
    assert_eq!(file.take::<Port>(2).unwrap(), port());
    assert_eq!(file.take::<Hint>(0).unwrap(), hint());
    file.finish().unwrap();
}

#[test]
fn manifest_in_the_state_is_the_manifest() {
    let writer = writer();
    let manifest = manifest(&writer);
    let bytes = writer.finish(&manifest).unwrap();
    let text = manifest.to_json().unwrap();
    assert_eq!(bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count(), 1);
    assert_eq!(*StateFile::parse(bytes).unwrap().manifest(), manifest);
}

#[test]
fn instances_of_a_kind_are_in_order() {
    let mut writer = StateWriter::new();
    writer.add(7, &timer()).add(0, &hint()).add(2, &timer());
    let file = StateFile::parse(state(writer)).unwrap();
    assert_eq!(file.instances("dev.timer"), [2, 7]);
    assert_eq!(file.instances("dev.hint"), [0]);
    assert_eq!(file.instances("virtio.port"), [0; 0]);
}

#[test]
fn state_that_was_not_saved_is_missing() {
    let mut file = StateFile::parse(state(writer())).unwrap();
    assert_eq!(file.take::<Timer>(1).unwrap_err().to_string(), "section dev.timer/1 is missing");
    assert_eq!(file.take_if_present::<Timer>(1).unwrap(), None);
}

#[test]
fn section_added_twice_is_refused() {
    let mut writer = StateWriter::new();
    writer.add(3, &timer()).add(3, &timer());
    let manifest = manifest(&writer);
    let error = writer.finish(&manifest).unwrap_err();
    assert_eq!(error.to_string(), "section dev.timer/3 is there twice");
}

#[test]
fn manifest_of_other_sections_is_refused() {
    let before = manifest(&writer());
    let mut writer = writer();
    writer.add(1, &timer());
    let error = writer.finish(&before).unwrap_err();
    let message = "the manifest lists other sections than the directory: not dev.timer/1 version 1";
    assert_eq!(error.to_string(), message);
}

#[test]
fn section_of_a_mebibyte_is_the_longest() {
    let longest = Hint(vec![0; MAX_SECTION_LEN as usize - 4]);
    let mut writer = StateWriter::new();
    writer.add(0, &longest);
    assert_eq!(StateFile::parse(state(writer)).unwrap().take::<Hint>(0).unwrap(), longest);

    let mut writer = StateWriter::new();
    writer.add(0, &Hint(vec![0; MAX_SECTION_LEN as usize - 3]));
    let manifest = manifest(&writer);
    let error = writer.finish(&manifest).unwrap_err();
    assert_eq!(error.to_string(), "section dev.hint/0 has 1048577 bytes, but a section has at most 1048576");
}

#[test]
fn state_of_more_than_64_mib_is_refused() {
    let hint = Hint(vec![0; MAX_SECTION_LEN as usize - 4]);
    let mut writer = StateWriter::new();
    for instance in 0..64 {
        writer.add(instance, &hint);
    }
    let manifest = manifest(&writer);
    let error = writer.finish(&manifest).unwrap_err();
    assert!(matches!(error, FormatError::LongState { len } if len > 64 << 20), "{error}");
}

prop_compose! {
    fn any_port()(queues: Vec<(u16, Option<u64>)>, name: String) -> Port {
        Port { queues: queues.into_iter().take(64).collect(), name }
    }
}

prop_compose! {
    fn any_timer()(count: u16, enabled: bool) -> Timer {
        Timer { count, enabled }
    }
}

prop_compose! {
    fn any_section()(kind in "[a-z0-9.-]{1,16}", instance: u32, version in 1_u16..) -> Section {
        Section { kind: SectionKind::new(&kind).unwrap(), instance, version }
    }
}

prop_compose! {
    fn any_layout()(pages in prop::collection::vec((1_u64..1 << 18, 0_u64..1 << 18), 0..4)) -> MemoryLayout {
        let mut end = 0;
        let ranges = pages.into_iter().map(|(len, gap)| {
            let start = end + gap * PAGE_LEN;
            end = start + len * PAGE_LEN;
            start..end
        });
        MemoryLayout::of(ranges).unwrap()
    }
}

prop_compose! {
    fn any_manifest()(
        texts: [String; 4],
        numbers: [u32; 4],
        seconds in 0_u64..253_402_300_800,
        ids: ([u8; 16], Option<[u8; 16]>),
        memory in any_layout(),
        disks: Vec<(String, u64, Option<String>)>,
        config in prop::collection::hash_map(any::<String>(), any::<i64>(), 0..4),
        sections in prop::collection::vec(any_section(), 0..4),
    ) -> Manifest {
        let [program, version, vendor, kernel] = texts;
        let [family, model, stepping, tsc_khz] = numbers;
        let disks = disks.into_iter().enumerate().map(|(index, (path, len, stamp))| SavedDisk {
            id: format!("disk{index}"),
            path,
            len,
            contents: stamp.map_or(DiskContents::Saved(format!("disks/{index}")), DiskContents::Stamp),
        });
        Manifest {
            format: FORMAT,
            program,
            version,
            created: Timestamp::from_seconds(seconds).unwrap(),
            id: SnapshotId::from_bytes(ids.0),
            parent: ids.1.map(SnapshotId::from_bytes),
            host: SavedHost { vendor, family, model, stepping, kernel, tsc_khz },
            memory,
            disks: disks.collect(),
            config: config.into_iter().map(|(key, value)| (key, value.into())).collect(),
            sections,
        }
    }
}

proptest! {
    #[test]
    fn any_states_are_taken_as_they_were_added(
        timers in prop::collection::btree_map(any::<u32>(), any_timer(), 0..8),
        ports in prop::collection::btree_map(any::<u32>(), any_port(), 0..4),
    ) {
        let mut writer = StateWriter::new();
        for (instance, timer) in &timers {
            writer.add(*instance, timer);
        }
        for (instance, port) in &ports {
            writer.add(*instance, port);
        }
        let mut file = StateFile::parse(state(writer)).unwrap();
        for (instance, timer) in timers {
            prop_assert_eq!(file.take::<Timer>(instance).unwrap(), timer);
        }
        for (instance, port) in ports {
            prop_assert_eq!(file.take::<Port>(instance).unwrap(), port);
        }
        file.finish().unwrap();
    }

    #[test]
    fn any_manifest_is_read_as_written(manifest in any_manifest()) {
        let written = manifest.to_json();
        // Two sections of the same name by chance.
        prop_assume!(!matches!(written, Err(FormatError::Repeated(_))));
        prop_assert_eq!(Manifest::parse(written.unwrap().as_bytes()).unwrap(), manifest);
    }
}
