//! Images whose tables would be overwritten by data: rejected before the first write, or that write fails.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;
use vmm_virtio::testing::DEADLINE;

use crate::disk::*;
use crate::images::Images;
use crate::tools::{qemu_img, trial};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("image_whose_data_is_misplaced_says_so_when_it_is_read", misplaced_data_is_told),
        trial("image_whose_header_counts_as_free_is_refused", || counts_as_free(|_| 0, "the header at 0x0")),
        trial("image_whose_l1_table_counts_as_free_is_refused", || {
            counts_as_free(|image| image.l1, "the level 1 table at 0x30000");
        }),
        trial("image_with_an_l2_table_that_counts_as_free_is_refused", || {
            counts_as_free(|image| image.l2, "a level 2 table at 0x40000");
        }),
        trial("image_whose_refcount_table_counts_as_free_is_refused", || {
            counts_as_free(|image| image.refcount_table, "the refcount table at 0x10000");
        }),
        trial("image_with_a_refcount_block_that_counts_as_free_is_refused", || {
            counts_as_free(|image| image.refcount_block, "a refcount block at 0x20000");
        }),
        trial("image_with_an_l2_table_over_another_table_is_refused", l2_over_l1),
        trial("image_with_an_l2_table_across_clusters_is_refused", l2_across_clusters),
        trial("image_with_data_over_its_tables_is_refused", data_over_tables),
        trial("image_with_data_across_clusters_is_refused", data_across_clusters),
        trial("image_that_is_cut_short_is_refused", cut_short),
        trial("image_whose_last_cluster_is_cut_off_is_written", last_cluster_is_cut_off),
        trial("image_of_each_refcount_width_is_written", each_width),
        trial("image_whose_snapshot_table_counts_as_free_is_refused", || {
            snapshot_counts_as_free(|image| image.read(SNAPSHOTS), "the snapshot table");
        }),
        trial("image_with_a_snapshots_l1_table_that_counts_as_free_is_refused", || {
            snapshot_counts_as_free(|image| image.snapshot_l1(), "a level 1 table of a snapshot");
        }),
        trial("image_with_a_snapshots_l2_table_that_counts_as_free_is_refused", || {
            snapshot_counts_as_free(|image| image.snapshot_l2(), "a level 2 table of a snapshot");
        }),
        trial("image_with_a_snapshots_table_over_another_is_refused", snapshot_over_l1),
        trial("image_with_a_snapshots_tables_across_clusters_is_refused", snapshot_across_clusters),
        trial("image_with_a_shared_l2_table_marked_as_its_own_is_refused", shared_l2_is_copied),
        trial("image_with_a_shared_l2_table_that_counts_as_one_is_refused", shared_l2_counts_as_one),
        trial("image_with_shared_data_marked_as_its_own_is_refused", shared_data_is_copied),
        trial("image_with_data_that_counts_as_free_is_refused", data_counts_as_free),
        trial("image_with_other_data_that_counts_as_free_is_refused", other_data_counts_as_free),
        trial("image_with_data_over_tables_far_behind_takes_no_write_there", data_over_tables_far_behind),
        trial("image_with_zeros_over_a_table_is_refused", zeros_over_table),
        trial("image_with_shared_data_far_behind_takes_no_write_there", shared_data_far_behind),
        trial("image_with_data_over_a_snapshots_tables_is_refused", data_over_snapshot),
        trial("image_with_snapshots_is_written_and_they_keep_what_they_have", snapshots_are_kept),
        trial("image_with_more_snapshots_than_can_be_checked_is_refused", too_many_snapshots),
        trial("image_with_65536_snapshots_is_opened_in_bounded_time", many_snapshots),
    ]
}

const CLUSTER: u64 = 64 << 10;
const FIRST: u64 = 0;
/// Offsets in a header of the number of snapshots and of their table's offset.
const SNAPSHOT_COUNT: u64 = 60;
const SNAPSHOTS: u64 = 64;

/// An image with a mebibyte of data, and the locations of its tables.
struct Image {
    images: Images,
    l1: u64,
    l2: u64,
    refcount_table: u64,
    refcount_block: u64,
}

impl Image {
    fn new() -> Self {
        let images = Images::new();
        images.qemu_img("create -f qcow2 DIR/a.qcow2 8M");
        let mut disk = images.disk("a.qcow2", json!({}));
        assert_eq!(send(&mut disk, OUT, FIRST, &[17; 1 << 20]), OK);
        drop(disk);
        let mut image = Self { images, l1: 0, l2: 0, refcount_table: 0, refcount_block: 0 };
        (image.l1, image.refcount_table) = (image.read(40), image.read(48));
        (image.l2, image.refcount_block) = (image.read(image.l1) << 8 >> 8, image.read(image.refcount_table));
        image
    }

    /// With the snapshot "s", which shares all of it.
    fn with_snapshot() -> Self {
        let image = Self::new();
        image.images.qemu_img("snapshot -c s DIR/a.qcow2");
        image
    }

    /// With a snapshot that has an L2 table and data of its own, because the disk has been written since.
    fn with_other_data() -> Self {
        let mut image = Self::with_snapshot();
        let mut disk = image.images.disk("a.qcow2", json!({}));
        assert_eq!(send(&mut disk, OUT, FIRST, &[18; 4096]), OK);
        drop(disk);
        image.l2 = image.read(image.l1) << 8 >> 8;
        image
    }

    fn snapshot_l1(&self) -> u64 {
        self.read(self.read(SNAPSHOTS))
    }

    fn snapshot_l2(&self) -> u64 {
        self.read(self.snapshot_l1()) << 8 >> 8
    }

    /// The reference count of the cluster at `at`.
    fn set_count(&self, at: u64, count: u16) {
        self.write(self.refcount_block + at / CLUSTER * 2, &count.to_be_bytes());
    }

    fn read(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let file = std::fs::File::open(self.images.path("a.qcow2")).unwrap();
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.images.path("a.qcow2")).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    #[track_caller]
    fn assert_refused(&self, problem: &str) {
        let message = format!(".path: DIR/a.qcow2 is damaged, {problem}");
        assert_eq!(self.images.refusal("a.qcow2", json!({})), message);
    }
}

/// The next allocation would get it.
fn counts_as_free(table: fn(&Image) -> u64, name: &str) {
    let image = Image::new();
    image.write(image.refcount_block + table(&image) / CLUSTER * 2, &[0, 0]);
    image.assert_refused(&format!(
        "{name} has a reference count of 0: repair it, qemu-img check -r all DIR/a.qcow2"
    ));
    let mut disk = image.images.disk("a.qcow2", json!({"read_only": true}));
    assert_eq!(read(&mut disk, FIRST, 512), (vec![17; 512], OK));
    drop(disk);
    image.images.qemu_img("check -r all DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, 4096, &[18; 1 << 16]), OK);
    assert_eq!(read(&mut disk, FIRST, 512), (vec![17; 512], OK));
}

fn l2_over_l1() {
    let image = Image::new();
    image.write(image.l1, &(image.l1 | 1 << 63).to_be_bytes());
    image.assert_refused(
        "a level 2 table at 0x30000 overlaps the level 1 table: see qemu-img check DIR/a.qcow2",
    );
}

fn l2_across_clusters() {
    let image = Image::new();
    image.write(image.l1, &((image.l2 + 512) | 1 << 63).to_be_bytes());
    image.assert_refused("a level 2 table can't be at 0x40200: see qemu-img check DIR/a.qcow2");
}

/// An entry refers to a table's cluster as the guest's data, in each possible way.
fn data_over_tables() {
    const COPIED: u64 = 1 << 63;
    const COMPRESSED: u64 = 1 << 62;
    const ZERO: u64 = 1;
    let image = Image::new();
    let tables = [image.l1, image.l2, image.refcount_table, image.refcount_block];
    let entry = image.read(image.l2);
    for (table, flags) in
        tables.into_iter().flat_map(|table| [0, COPIED, COMPRESSED, ZERO].map(|flags| (table, flags)))
    {
        image.write(image.l2, &(table | flags).to_be_bytes());
        image.assert_refused(&format!("data at {table:#x} overlaps a table: see qemu-img check DIR/a.qcow2"));
    }
    let mut disk = image.images.disk("a.qcow2", json!({"read_only": true}));
    assert_eq!(read(&mut disk, 128, 512), (vec![17; 512], OK));
    drop(disk);
    image.write(image.l2, &entry.to_be_bytes());
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, FIRST, &[18; 512]), OK);
}

/// Including in the header's cluster, to which an offset of 0 would not refer.
fn data_across_clusters() {
    let image = Image::new();
    for at in [512, image.l2 + 512] {
        for flags in [0, 1 << 63, 1] {
            image.write(image.l2, &(at | flags).to_be_bytes());
            image.assert_refused(&format!("data can't be at {at:#x}: see qemu-img check DIR/a.qcow2"));
        }
    }
    image.write(image.l2, &(1_u64 << 62 | 512).to_be_bytes());
    image.assert_refused("data at 0x0 overlaps a table: see qemu-img check DIR/a.qcow2");
}

/// At its last data, at all of its data, and at its L2 table. What is missing would read as zeros. qemu-img check regards it
/// as damaged, too.
fn cut_short() {
    let image = Image::new();
    let path = image.images.path("a.qcow2");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let last = image.read(image.l2 + 8 * 15) << 8 >> 8;
    let first = image.read(image.l2) << 8 >> 8;
    for (len, at) in [(last, last), (first, first), (image.l2, image.l2)] {
        file.set_len(len).unwrap();
        let message = format!(
            ".path: DIR/a.qcow2 is cut short, it ends at {len:#x} but refers to {at:#x}: copy it again from its source, or see \
             qemu-img check DIR/a.qcow2"
        );
        assert_eq!(image.images.refusal("a.qcow2", json!({})), message);
        let (is_clean, _) = qemu_img(&image.images.with_dir("check DIR/a.qcow2"));
        assert!(!is_clean, "{len:#x}");
        let mut disk = image.images.disk("a.qcow2", json!({"read_only": true}));
        assert_eq!(read(&mut disk, 15 * 128, 512), (vec![0; 512], OK), "{len:#x}");
    }
}

/// As QEMU leaves it after a write of less than a cluster of a compressed image or of a raw one.
fn last_cluster_is_cut_off() {
    let image = Image::new();
    let last = image.read(image.l2 + 8 * 15) << 8 >> 8;
    let file = OpenOptions::new().write(true).open(image.images.path("a.qcow2")).unwrap();
    file.set_len(last + 512).unwrap();
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(read(&mut disk, 15 * 128, 512), (vec![17; 512], OK));
    assert_eq!(send(&mut disk, OUT, 15 * 128, &[18; 512]), OK);
}

/// Nor may it be written in place, because the next allocation would get it as well.
fn other_data_counts_as_free() {
    let image = Image::new();
    let entry = image.read(image.l2);
    image.write(image.l2, &(entry << 1 >> 1).to_be_bytes());
    image.set_count(entry << 1 >> 1, 0);
    let at = entry << 1 >> 1;
    let repair = "repair it, qemu-img check -r all DIR/a.qcow2";
    image.assert_refused(&format!("data at {at:#x} has a reference count of 0: {repair}"));
}

fn each_width() {
    let images = Images::new();
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        images.qemu_img(&format!("create -f qcow2 -o refcount_bits={bits},cluster_size=512 DIR/a.qcow2 8M"));
        for byte in [1, 2] {
            let mut disk = images.disk("a.qcow2", json!({}));
            assert_eq!(send(&mut disk, OUT, u64::from(byte) * 4096, &[byte; 1 << 16]), OK);
            assert_eq!(send(&mut disk, FLUSH, 0, &[]), OK);
            assert_eq!(read(&mut disk, u64::from(byte) * 4096, 1 << 16), (vec![byte; 1 << 16], OK));
        }
        let said = images.qemu_img("check DIR/a.qcow2");
        assert!(said.contains("No errors were found"), "{said}");
    }
}

/// The snapshot's bytes at the start of the disk.
fn snapshot_bytes(images: &Images) -> Vec<u8> {
    images.qemu_img("convert -f qcow2 -l s -O raw DIR/a.qcow2 DIR/s.raw");
    std::fs::read(images.path("s.raw")).unwrap()[..1 << 20].to_vec()
}

/// The next allocation would get it.
fn snapshot_counts_as_free(table: fn(&Image) -> u64, name: &str) {
    let image = Image::with_other_data();
    let at = table(&image);
    image.set_count(at, 0);
    let repair = "repair it, qemu-img check -r all DIR/a.qcow2";
    image.assert_refused(&format!("{name} at {at:#x} has a reference count of 0: {repair}"));
    assert!(
        try_open(json!({"path": image.images.path("a.qcow2"), "format": "qcow2", "read_only": true})).is_ok()
    );
    image.images.qemu_img("check -r all DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, 4096, &[19; 1 << 16]), OK);
    drop(disk);
    assert!(snapshot_bytes(&image.images) == vec![17; 1 << 20]);
}

fn snapshot_over_l1() {
    let image = Image::with_snapshot();
    let at = image.l1;
    image.write(image.read(SNAPSHOTS), &at.to_be_bytes());
    image.assert_refused(&format!(
        "a level 1 table of a snapshot at {at:#x} overlaps the level 1 table: see qemu-img check DIR/a.qcow2"
    ));
}

fn snapshot_across_clusters() {
    let image = Image::with_snapshot();
    let (table, l1, l2) = (image.read(SNAPSHOTS), image.snapshot_l1(), image.snapshot_l2());
    let see = "see qemu-img check DIR/a.qcow2";
    image.write(l1, &(l2 + 512).to_be_bytes());
    image.assert_refused(&format!("a level 2 table of a snapshot can't be at {:#x}: {see}", l2 + 512));
    image.write(table, &(l1 + 512).to_be_bytes());
    image.assert_refused(&format!("a level 1 table of a snapshot can't be at {:#x}: {see}", l1 + 512));
    image.write(SNAPSHOTS, &(table + 512).to_be_bytes());
    image.assert_refused(&format!("the snapshot table can't be at {:#x}: {see}", table + 512));
}

/// COPIED in the L1 entry.
fn shared_l2_is_copied() {
    let image = Image::with_snapshot();
    image.write(image.l1, &(image.l2 | 1 << 63).to_be_bytes());
    let (l2, repair) = (image.l2, "repair it, qemu-img check -r all DIR/a.qcow2");
    image.assert_refused(&format!(
        "a level 2 table at {l2:#x} is marked COPIED but has a reference count of 2: {repair}"
    ));
    image.images.qemu_img("check -r all DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, FIRST, &[18; 4096]), OK);
    drop(disk);
    assert!(snapshot_bytes(&image.images) == vec![17; 1 << 20]);
}

/// It has two users, and would be free when the first of them gets a copy.
fn shared_l2_counts_as_one() {
    let image = Image::with_snapshot();
    image.set_count(image.l2, 1);
    let (l2, repair) = (image.l2, "repair it, qemu-img check -r all DIR/a.qcow2");
    let problem =
        format!("a level 2 table at {l2:#x} is used 2 times but has a reference count of 1: {repair}");
    image.assert_refused(&problem);
    image.write(image.l1, &(image.l2 | 1 << 63).to_be_bytes());
    image.assert_refused(&problem);
}

/// COPIED in an entry of an L2 table that only the disk uses.
fn shared_data_is_copied() {
    let image = Image::with_other_data();
    // The second cluster, which both share.
    let data = image.read(image.l2 + 8);
    assert_eq!(data >> 63, 0);
    image.write(image.l2 + 8, &(data | 1 << 63).to_be_bytes());
    let repair = "repair it, qemu-img check -r all DIR/a.qcow2";
    image.assert_refused(&format!(
        "data at {data:#x} is marked COPIED but has a reference count of 2: {repair}"
    ));
    image.images.qemu_img("check -r all DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, 128, &[18; 4096]), OK);
    drop(disk);
    assert!(snapshot_bytes(&image.images) == vec![17; 1 << 20]);
}

fn data_counts_as_free() {
    let image = Image::new();
    let data = image.read(image.l2) << 8 >> 8;
    image.set_count(data, 0);
    let repair = "repair it, qemu-img check -r all DIR/a.qcow2";
    image.assert_refused(&format!(
        "data at {data:#x} is marked COPIED but has a reference count of 0: {repair}"
    ));
}

/// A cluster that reads as zeros, with an offset.
fn zeros_over_table() {
    let image = Image::new();
    image.write(image.l2, &(image.l1 | 1 << 63 | 1).to_be_bytes());
    let at = image.l1;
    image.assert_refused(&format!("data at {at:#x} overlaps a table: see qemu-img check DIR/a.qcow2"));
}

/// Number of sectors covered by an L2 table of 2 MiB.
const L2_SECTORS: u64 = 1 << 30;

/// With data beyond what is checked at opening: in the ninth L2 table of 2 MiB, which cover 512 GiB each.
fn far_behind() -> Image {
    let images = Images::new();
    images.qemu_img("create -f qcow2 -o cluster_size=2M DIR/a.qcow2 5T");
    let mut disk = images.disk("a.qcow2", json!({}));
    (0..9).for_each(|table| assert_eq!(send(&mut disk, OUT, table * L2_SECTORS, &[17; 512]), OK));
    drop(disk);
    let mut image = Image { images, l1: 0, l2: 0, refcount_table: 0, refcount_block: 0 };
    (image.l1, image.refcount_table) = (image.read(40), image.read(48));
    image.l2 = image.read(image.l1 + 8 * 8) << 8 >> 8;
    image.refcount_block = image.read(image.refcount_table);
    image
}

fn data_over_tables_far_behind() {
    let image = far_behind();
    let tables = [image.l1, image.l2, image.refcount_table, image.refcount_block];
    let before = tables.map(|table| image.read(table));
    for table in tables {
        image.write(image.l2, &(table | 1 << 63).to_be_bytes());
        let mut disk = image.images.disk("a.qcow2", json!({}));
        assert_eq!(send(&mut disk, OUT, 8 * L2_SECTORS, &[18; 512]), IOERR, "{table:#x}");
        assert_eq!(send(&mut disk, OUT, 0, &[18; 512]), OK);
    }
    // The test has changed the L2 table itself.
    assert_eq!([0, 2, 3].map(|table| image.read(tables[table])), [0, 2, 3].map(|table| before[table]));
}

fn shared_data_far_behind() {
    let image = far_behind();
    let data = image.read(image.l2) << 8 >> 8;
    image.write(image.refcount_block + data / (2 << 20) * 2, &2_u16.to_be_bytes());
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, 7 * L2_SECTORS, &[18; 512]), OK);
    assert_eq!(send(&mut disk, OUT, 8 * L2_SECTORS, &[18; 512]), IOERR);
    assert_eq!(send(&mut disk, DISCARD, 0, &segment(8 * L2_SECTORS, 4096, 0)), IOERR);
    assert_eq!(send(&mut disk, WRITE_ZEROES, 0, &segment(8 * L2_SECTORS, 4096, 0)), IOERR);
    // A request that starts in the previous table.
    assert_eq!(send(&mut disk, OUT, 8 * L2_SECTORS - 1, &[18; 1024]), IOERR);
    assert_eq!(read(&mut disk, 8 * L2_SECTORS, 512), (vec![17; 512], OK));
    let begun = Instant::now();
    let told = loop {
        let told = disk.control().take_notices().texts;
        if !told.is_empty() {
            break told;
        }
        assert!(begun.elapsed() < DEADLINE, "nothing is told");
        sleep(Duration::from_millis(10));
    };
    let path = image.images.path("a.qcow2");
    let path = path.display();
    assert_eq!(
        told,
        [format!(
            "a write at byte {} of the disk failed: {path} is damaged, data at {data:#x} is marked COPIED but has a reference count \
             of 2: repair it, qemu-img check -r all {path}",
            8 * L2_SECTORS * 512
        )]
    );
}

/// An offset within a cluster, which makes the whole table unreadable for imago.
fn misplaced_data_is_told() {
    let image = Image::new();
    let place = image.read(image.l2 + 8 * FIRST / 128);
    image.write(image.l2 + 8 * FIRST / 128, &(place | 512).to_be_bytes());
    let mut disk = image.images.disk("a.qcow2", json!({"read_only": true}));
    assert_eq!([FIRST, FIRST + 128].map(|sector| read(&mut disk, sector, 512).1), [IOERR; 2]);
    let told = disk.control().take_notices().texts;
    let start = format!("a read at byte {} of the disk failed: ", FIRST * 512);
    assert!(told.len() == 1 && told[0].strip_prefix(&start).is_some_and(|why| !why.is_empty()), "{told:?}");
}

fn data_over_snapshot() {
    let image = Image::with_other_data();
    let tables = [image.read(SNAPSHOTS), image.snapshot_l1(), image.snapshot_l2()];
    for (table, flags) in tables.into_iter().flat_map(|table| [0, 1 << 63].map(|flags| (table, flags))) {
        image.set_count(table, 1);
        image.write(image.l2, &(table | flags).to_be_bytes());
        image.assert_refused(&format!("data at {table:#x} overlaps a table: see qemu-img check DIR/a.qcow2"));
    }
    // Compressed data that only ends there.
    let at = image.snapshot_l1();
    image.write(image.l2, &(1 << 62 | 1 << 54 | (at - 512)).to_be_bytes());
    image.assert_refused(&format!("data at {at:#x} overlaps a table: see qemu-img check DIR/a.qcow2"));
}

/// Two snapshots, each with data of its own, with writes in between by us and by QEMU.
fn snapshots_are_kept() {
    let image = Image::with_other_data();
    image.images.qemu_img("snapshot -c t DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, FIRST, &[19; 1 << 20]), OK);
    assert_eq!(send(&mut disk, DISCARD, 0, &segment(256, 128, 0)), OK);
    drop(disk);
    let said = image.images.qemu_img("check DIR/a.qcow2");
    assert!(said.contains("No errors were found"), "{said}");
    assert!(snapshot_bytes(&image.images) == vec![17; 1 << 20]);
    image.images.qemu_img("snapshot -d s DIR/a.qcow2");
    image.images.qemu_img("snapshot -a t DIR/a.qcow2");
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut disk, OUT, 4096, &[20; 4096]), OK);
    assert_eq!(read(&mut disk, FIRST, 4096), (vec![18; 4096], OK));
}

/// A snapshot table at 16 MiB, with an L1 table of `l1_entries` per snapshot at `l1` + a multiple of its
/// length.
fn hostile_snapshots(count: u32, l1: u64, l1_entries: u32) -> Image {
    let image = Image::new();
    let entries: Vec<u8> = (0..u64::from(count))
        .flat_map(|index| {
            let l1 = l1 + index * u64::from(l1_entries) * 8;
            [&l1.to_be_bytes()[..], &l1_entries.to_be_bytes(), &[0; 28]].concat()
        })
        .collect();
    image.write(16 << 20, &entries);
    image.write(SNAPSHOT_COUNT, &count.to_be_bytes());
    image.write(SNAPSHOTS, &(16_u64 << 20).to_be_bytes());
    image
}

const TOO_MANY: &str = ".path: DIR/a.qcow2 has more internal snapshots than can be checked before it is written: set \
                        \"read_only\", remove some, qemu-img snapshot -d NAME DIR/a.qcow2, or convert it, qemu-img convert -O \
                        qcow2 DIR/a.qcow2 NEW.qcow2";

/// 32 MiB each, the maximum.
fn too_many_snapshots() {
    let image = hostile_snapshots(3, 1 << 40, 4 << 20);
    assert_eq!(image.images.refusal("a.qcow2", json!({})), TOO_MANY);
    assert!(
        try_open(json!({"path": image.images.path("a.qcow2"), "format": "qcow2", "read_only": true})).is_ok()
    );
    let image = hostile_snapshots(65_537, 1 << 40, 0);
    image.assert_refused("the number of snapshots can't be 0x10001: see qemu-img check DIR/a.qcow2");
}

/// Each with an L1 table of 64 KiB, 4 GiB in total, or with none.
fn many_snapshots() {
    let begun = Instant::now();
    let image = hostile_snapshots(65_536, 1 << 40, 8192);
    assert_eq!(image.images.refusal("a.qcow2", json!({})), TOO_MANY);
    let image = hostile_snapshots(65_536, 1 << 40, 0);
    let repair = "repair it, qemu-img check -r all DIR/a.qcow2";
    image.assert_refused(&format!("the snapshot table at 0x1000000 has a reference count of 0: {repair}"));
    assert!(begun.elapsed() < DEADLINE);
}
