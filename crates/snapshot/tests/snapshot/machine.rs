//! A small machine, and what tests do to its state.

use serde_json::json;
use vmm_snapshot::{
    DiskContents, FORMAT, FieldReader, FieldWriter, Manifest, MemoryLayout, SavedDisk, SavedHost, SnapshotId,
    State, StateError, StateWriter, Timestamp,
};

/// Where the header ends and the directory begins.
pub(crate) const HEADER_LEN: usize = 48;
const RECORD_LEN: usize = 48;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) count: u16,
    pub(crate) enabled: bool,
}

impl State for Timer {
    const KIND: &'static str = "dev.timer";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u16(self.count);
        fields.bool(self.enabled);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self { count: fields.u16("count")?, enabled: fields.bool("enabled")? })
    }
}

/// Version 1 had no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) queues: Vec<(u16, Option<u64>)>,
    pub(crate) name: String,
}

impl State for Port {
    const KIND: &'static str = "virtio.port";
    const VERSION: u16 = 2;

    fn save(&self, fields: &mut FieldWriter) {
        fields.list(&self.queues, |fields, (size, ring)| {
            fields.u16(*size);
            fields.option(*ring, FieldWriter::u64);
        });
        fields.text(&self.name);
    }

    fn load(version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        assert!(version == 1 || version == 2, "version {version}");
        let queues = fields.list("queues", 64, |fields| {
            Ok((fields.u16("size")?, fields.option("ring", |fields| fields.u64("address"))?))
        })?;
        let name = if version == 1 { "" } else { fields.text("name", 1 << 16)? };
        Ok(Self { queues, name: name.to_owned() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint(pub(crate) Vec<u8>);

impl State for Hint {
    const KIND: &'static str = "dev.hint";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.bytes(&self.0);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self(fields.bytes("hint", 1 << 20)?.to_vec()))
    }
}

pub(crate) fn timer() -> Timer {
    Timer { count: 500, enabled: true }
}

pub(crate) fn port() -> Port {
    Port { queues: vec![(256, Some(0x1000)), (128, None)], name: "net0".to_owned() }
}

pub(crate) fn hint() -> Hint {
    Hint(vec![1, 2, 3])
}

/// A timer, a port, and a hint that may be skipped.
pub(crate) fn writer() -> StateWriter {
    let mut writer = StateWriter::new();
    writer.add(0, &timer()).add(2, &port()).add_skippable(0, &hint());
    writer
}

/// The manifest of a machine with the sections of `writer`.
pub(crate) fn manifest(writer: &StateWriter) -> Manifest {
    let config = json!({"boot": {"kernel": "vmlinuz"}, "memory": {"size": "16K"}});
    Manifest {
        format: FORMAT,
        program: "vmm-bin".to_owned(),
        version: "0.1.0".to_owned(),
        created: Timestamp::from_seconds(1_709_210_096).unwrap(),
        id: SnapshotId::from_bytes(*b"0123456789abcdef"),
        parent: Some(SnapshotId::from_bytes([0; 16])),
        host: SavedHost {
            vendor: "GenuineIntel".to_owned(),
            family: 6,
            model: 85,
            stepping: 7,
            kernel: "6.1.0-56-amd64".to_owned(),
            tsc_khz: 2_500_000,
        },
        memory: MemoryLayout::of([0..16 << 10]).unwrap(),
        disks: vec![disk("root", DiskContents::Stamp("8:1 1234 1709210000.5".to_owned()))],
        config: config.as_object().unwrap().clone(),
        sections: writer.sections(),
    }
}

pub(crate) fn disk(id: &str, contents: DiskContents) -> SavedDisk {
    SavedDisk { id: id.to_owned(), path: "/srv/root.img".to_owned(), len: 1 << 30, contents }
}

/// The state file of `writer`.
pub(crate) fn state(writer: StateWriter) -> Vec<u8> {
    let manifest = manifest(&writer);
    writer.finish(&manifest).unwrap()
}

/// Where the directory entry of a section begins. The manifest is section 0.
pub(crate) fn record(section: usize) -> usize {
    HEADER_LEN + section * RECORD_LEN
}

/// Replaces bytes of a state file.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The eight bytes at a place.
pub(crate) fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// Makes the checksums of header and directory right again.
pub(crate) fn seal(file: &mut [u8]) {
    let directory_len = u64_at(file, 24) as usize;
    let directory = crc32fast::hash(&file[HEADER_LEN..HEADER_LEN + directory_len]);
    put(file, 40, &directory.to_le_bytes());
    let header = crc32fast::hash(&file[..44]);
    put(file, 44, &header.to_le_bytes());
}
