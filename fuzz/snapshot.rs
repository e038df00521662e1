//! Shared by the targets that read a snapshot: a machine with three kinds of sections.

use vmm_snapshot::{
    DiskContents, FORMAT, FieldReader, FieldWriter, Manifest, MemoryLayout, SavedDisk, SavedHost, Section,
    SnapshotId, State, StateError, Timestamp,
};

/// A section with a field of each type. `KIND` is "dev.0" to "dev.3", and the version is 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<const KIND: usize> {
    numbers: (u8, u16, u32, u64, bool),
    array: [u8; 3],
    bytes: Vec<u8>,
    text: String,
    list: Vec<Option<u16>>,
    /// Not in version 1.
    last: u8,
}

/// The kinds of parts, and one that nothing takes.
pub const KINDS: [&str; 4] = ["dev.0", "dev.1", "dev.2", "dev.3"];

impl<const KIND: usize> State for Part<KIND> {
    const KIND: &'static str = KINDS[KIND];
    const VERSION: u16 = 2;
    const MIN_READER: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        let (a, b, c, d, e) = self.numbers;
        fields.u8(a);
        fields.u16(b);
        fields.u32(c);
        fields.u64(d);
        fields.bool(e);
        fields.array(&self.array);
        fields.bytes(&self.bytes);
        fields.text(&self.text);
        fields.list(&self.list, |fields, item| fields.option(*item, FieldWriter::u16));
        fields.u8(self.last);
    }

    fn load(version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        assert!(version == 1 || version == 2, "version {version}");
        Ok(Self {
            numbers: (fields.u8("a")?, fields.u16("b")?, fields.u32("c")?, fields.u64("d")?, fields.bool("e")?),
            array: fields.array("array")?,
            bytes: fields.bytes("bytes", 100)?.to_vec(),
            text: fields.text("text", 100)?.to_owned(),
            list: fields.list("list", 100, |fields| fields.option("item", |fields| fields.u16("value")))?,
            last: if version == 1 { 0 } else { fields.u8("last")? },
        })
    }
}

/// The manifest of a machine with these sections.
pub fn manifest(sections: Vec<Section>) -> Manifest {
    let disk = |id: &str, contents| SavedDisk { id: id.to_owned(), path: "a.img".to_owned(), len: 512, contents };
    Manifest {
        format: FORMAT,
        program: "fuzz".to_owned(),
        version: "0.0.0".to_owned(),
        created: Timestamp::from_seconds(1).expect("1970"),
        id: SnapshotId::from_bytes([1; 16]),
        parent: None,
        host: SavedHost {
            vendor: "Vendor".to_owned(),
            family: 6,
            model: 1,
            stepping: 1,
            kernel: "6.1".to_owned(),
            tsc_khz: 1000,
        },
        memory: MemoryLayout::of([0..1 << 20, 1 << 32..(1 << 32) + 4096]).expect("two regions"),
        disks: vec![
            disk("a", DiskContents::Saved("disks/a".to_owned())),
            disk("b", DiskContents::Stamp("1".to_owned())),
        ],
        config: [("cpus".to_owned(), 1.into())].into_iter().collect(),
        sections,
    }
}
