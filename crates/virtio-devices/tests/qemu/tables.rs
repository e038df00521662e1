//! Images whose tables aren't safe from what is written: refused before the first write, or that write fails.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use libtest_mimic::Trial;
use serde_json::json;

use crate::disk::*;
use crate::images::Images;
use crate::tools::trial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
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
        trial("image_with_data_over_its_tables_takes_no_write_there", data_over_tables),
        trial("image_of_each_refcount_width_is_written", each_width),
    ]
}

const CLUSTER: u64 = 64 << 10;
const FIRST: u64 = 0;

/// An image with a mebibyte of data, and where its tables are.
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

/// What would be written next goes there.
fn counts_as_free(table: fn(&Image) -> u64, name: &str) {
    let image = Image::new();
    image.write(image.refcount_block + table(&image) / CLUSTER * 2, &[0, 0]);
    image.assert_refused(&format!("{name} counts as free: repair it, qemu-img check -r all DIR/a.qcow2"));
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
        "a level 2 table at 0x30000 lies over the level 1 table: see qemu-img check DIR/a.qcow2",
    );
}

fn l2_across_clusters() {
    let image = Image::new();
    image.write(image.l1, &((image.l2 + 512) | 1 << 63).to_be_bytes());
    image.assert_refused("a level 2 table can't be at 0x40200: see qemu-img check DIR/a.qcow2");
}

/// An entry names a table's cluster as the guest's.
fn data_over_tables() {
    let image = Image::new();
    for (entry, table) in [image.l1, image.l2, image.refcount_block].into_iter().enumerate() {
        image.write(image.l2 + entry as u64 * 8, &(table | 1 << 63).to_be_bytes());
    }
    let tables = || [image.l1, image.l2, image.refcount_block].map(|table| image.read(table));
    let before = tables();
    let mut disk = image.images.disk("a.qcow2", json!({}));
    for sector in [0, 128, 256] {
        assert_eq!(send(&mut disk, OUT, sector, &[7; 512]), IOERR);
        assert_eq!(send(&mut disk, DISCARD, 0, &segment(sector, 128, 0)), IOERR);
        assert_eq!(send(&mut disk, WRITE_ZEROES, 0, &segment(sector, 128, 0)), IOERR);
    }
    // A request that only ends there.
    assert_eq!(send(&mut disk, OUT, 384, &[8; 512]), OK);
    drop(disk);
    assert_eq!(tables(), before);
    let mut disk = image.images.disk("a.qcow2", json!({}));
    assert_eq!(read(&mut disk, 384, 512), (vec![8; 512], OK));
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
