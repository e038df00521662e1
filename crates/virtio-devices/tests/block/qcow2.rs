//! qcow2 images.

use std::fs::File;
use std::path::{Path, PathBuf};

use imago::FormatCreateBuilder;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::testing::Driver;

use crate::disk::*;

/// A directory for images that refer to each other.
pub(crate) struct Images(TempDir);

impl Images {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A qcow2 image of `len` bytes, optionally with a backing file and its format.
    pub(crate) fn create(&self, name: &str, len: u64, backing: Option<(&str, &str)>) -> PathBuf {
        let file = File::options().read(true).write(true).create_new(true).open(self.path(name)).unwrap();
        let mut builder = Qcow2::<Storage>::create_builder(Storage::try_from(file).unwrap()).size(len);
        if let Some((name, format)) = backing {
            builder = builder.backing(name.to_owned(), format.to_owned());
        }
        builder.create().unwrap();
        self.path(name)
    }

    /// A raw image with the contents of [`image`].
    fn create_raw(&self, name: &str) -> PathBuf {
        std::fs::write(self.path(name), bytes_of(&image())).unwrap();
        self.path(name)
    }

    /// The message for images that can't be opened, with DIR for the directory.
    fn refusal(&self, fields: Value) -> String {
        let Err(error) = try_open(fields) else { panic!("it was opened") };
        error.to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }
}

fn config(path: &Path) -> Value {
    json!({"path": path, "format": "qcow2"})
}

fn with_backing(path: &Path, backing: &[&Path]) -> Value {
    json!({"path": path, "format": "qcow2", "backing": backing})
}

fn disk(path: &Path) -> Driver {
    start(config(path))
}

#[test]
fn image_is_as_large_as_it_says_and_starts_with_zeros() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 30, None);
    let mut driver = disk(&path);
    assert_eq!(driver.config(0, 8), (1_u64 << 21).to_le_bytes());
    assert_eq!(read(&mut driver, (1 << 21) - 1, 512), (vec![0; 512], OK));
    assert_eq!(read(&mut driver, 1 << 21, 512).1, IOERR);
}

#[test]
fn write_is_there_at_the_next_start() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 30, None);
    let mut driver = disk(&path);
    // Longer than the monitor's buffer.
    let data: Vec<u8> = (0..200 * 1024_u32).map(|at| (at / 512) as u8).collect();
    assert_eq!(send(&mut driver, OUT, 1_000_000, &data), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    drop(driver);
    let mut driver = disk(&path);
    assert_eq!(read(&mut driver, 1_000_000, 200 * 1024), (data, OK));
    assert!(std::fs::metadata(&path).unwrap().len() < 2 << 20, "the image is sparse");
}

/// Without a flush by the driver, the data is in the image when the monitor exits.
#[test]
fn write_is_there_without_a_flush() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, None);
    let mut driver = disk(&path);
    assert_eq!(send(&mut driver, OUT, 5, &[7; 512]), OK);
    drop(driver);
    assert_eq!(read(&mut disk(&path), 5, 512), (vec![7; 512], OK));
}

#[test]
fn discard_and_write_zeroes() {
    let images = Images::new();
    let mut driver = disk(&images.create("a.qcow2", 1 << 20, None));
    assert_eq!(send(&mut driver, OUT, 0, &vec![7; 256 << 10]), OK);
    // Clusters of 64 KiB have 128 sectors.
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 128, 0)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(128, 128, 1)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(260, 8, 0)), OK);
    assert_eq!(read(&mut driver, 128, 64 << 10), (vec![0; 64 << 10], OK));
    assert_eq!(read(&mut driver, 260, 4096), (vec![0; 4096], OK));
    assert_eq!(read(&mut driver, 268, 512), (vec![7; 512], OK));
    assert_eq!(read(&mut driver, 259, 512), (vec![7; 512], OK));
}

#[test]
fn read_only_image_stays_as_it_is() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, None);
    let before = std::fs::read(&path).unwrap();
    let mut driver = start(json!({"path": path, "format": "qcow2", "read_only": true}));
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), IOERR);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(read(&mut driver, 0, 512), (vec![0; 512], OK));
    drop(driver);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn image_is_locked() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, None);
    let _first = disk(&path);
    assert!(images.refusal(config(&path)).starts_with(".path: DIR/a.qcow2 is used twice in this machine: "));
}

#[test]
fn backing_file_that_is_listed_is_read() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", SECTORS * 512, Some(("base.img", "raw")));
    let mut driver = start(with_backing(&path, &[&base]));
    assert_eq!(read(&mut driver, 100, 512), (vec![100; 512], OK));
    assert_eq!(send(&mut driver, OUT, 100, &[1; 512]), OK);
    assert_eq!(read(&mut driver, 99, 1024), ([[99; 512], [1; 512]].concat(), OK));
    drop(driver);
    assert_eq!(std::fs::read(&base).unwrap(), bytes_of(&image()));
}

#[test]
fn backing_file_of_a_backing_file() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let middle = images.create("middle.qcow2", SECTORS * 512, Some(("base.img", "raw")));
    let path = images.create("a.qcow2", SECTORS * 512, Some(("middle.qcow2", "qcow2")));
    let mut driver = start(with_backing(&path, &[&middle, &base]));
    assert_eq!(read(&mut driver, 7, 512), (vec![7; 512], OK));
    drop(driver);
    assert_eq!(
        images.refusal(with_backing(&path, &[&middle])),
        ".backing[0]: DIR/middle.qcow2 has the backing file base.img, list that under \"backing\""
    );
}

/// The attack: an image from a stranger refers to a file of the host.
#[test]
fn backing_file_that_is_not_listed_is_not_opened() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, Some(("/etc/passwd", "raw")));
    assert_eq!(
        images.refusal(config(&path)),
        ".path: DIR/a.qcow2 has the backing file /etc/passwd, list that under \"backing\""
    );
}

#[test]
fn backing_file_that_is_another() {
    let images = Images::new();
    let (_, other) = (images.create_raw("base.img"), images.create_raw("other.img"));
    let path = images.create("a.qcow2", SECTORS * 512, Some(("base.img", "raw")));
    assert_eq!(
        images.refusal(with_backing(&path, &[&other])),
        ".backing[0]: DIR/other.img is listed, but the backing file of DIR/a.qcow2 is base.img"
    );
}

#[test]
fn backing_file_too_many() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", 1 << 20, None);
    assert_eq!(
        images.refusal(with_backing(&path, &[&base])),
        ".backing[0]: DIR/base.img is listed, but DIR/a.qcow2 has no backing file: remove it"
    );
    let path = images.create("b.qcow2", SECTORS * 512, Some(("base.img", "raw")));
    assert_eq!(
        images.refusal(with_backing(&path, &[&base, &base])),
        ".backing[1]: DIR/base.img is listed, but DIR/base.img is raw: remove it"
    );
}

#[test]
fn backing_file_of_another_format() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", 1 << 20, Some(("base.img", "vmdk")));
    assert_eq!(
        images.refusal(with_backing(&path, &[&base])),
        ".path: DIR/a.qcow2 says that its backing file base.img is vmdk, which isn't supported: convert that, qemu-img convert \
         -f vmdk -O qcow2 DIR/base.img NEW.qcow2, and then qemu-img rebase -u -f qcow2 -F qcow2 -b NEW.qcow2 DIR/a.qcow2"
    );
}

#[test]
fn backing_file_declared_qcow2_that_is_raw() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", 1 << 20, Some(("base.img", "qcow2")));
    assert_eq!(
        images.refusal(with_backing(&path, &[&base])),
        ".backing[0]: DIR/base.img isn't a qcow2 image, though DIR/a.qcow2 says so: if its bytes are the disk's, qemu-img \
         rebase -u -f qcow2 -F raw -b base.img DIR/a.qcow2"
    );
}

/// The message is shown on a terminal.
#[test]
fn backing_file_with_a_name_of_control_characters() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, Some(("\x1b[2J", "raw")));
    assert_eq!(
        images.refusal(config(&path)),
        r#".path: DIR/a.qcow2 has the backing file $'\x1b[2J', list that under "backing""#
    );
}

#[test]
fn image_that_is_its_own_backing_file_is_used_twice() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, Some(("a.qcow2", "qcow2")));
    let message = images.refusal(with_backing(&path, &[&path]));
    assert!(
        message.starts_with(".backing[0]: DIR/a.qcow2 is used twice in this machine, and written: "),
        "{message}"
    );
}

/// Listed files are opened and read, so their number must be bounded.
#[test]
fn backing_files_without_end() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, Some(("a.qcow2", "qcow2")));
    let disk = |count| {
        let backing = vec![path.clone(); count];
        json!({"path": path, "format": "qcow2", "read_only": true, "backing": backing})
    };
    assert_eq!(
        images.refusal(disk(64)),
        ".backing[63]: DIR/a.qcow2 has the backing file a.qcow2, list that under \"backing\""
    );
    assert_eq!(
        images.refusal(disk(65)),
        ".backing[64]: DIR/a.qcow2 exceeds the maximum of 64 backing files: merge them, qemu-img convert -O qcow2 \
         DIR/a.qcow2 NEW.qcow2"
    );
}

#[test]
fn header_that_is_cut_short() {
    let images = Images::new();
    let path = images.path("a.qcow2");
    std::fs::write(&path, b"QFI\xfb\0\0\0\x03").unwrap();
    assert_eq!(
        images.refusal(config(&path)),
        ".path: DIR/a.qcow2 ends within its header, after 8 bytes: copy it again from its source"
    );
}

#[test]
fn overlay_over_qcow2() {
    let images = Images::new();
    let path = images.create("a.qcow2", 1 << 20, None);
    let mut driver = disk(&path);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 4096]), OK);
    drop(driver);
    let before = std::fs::read(&path).unwrap();
    let mut driver = start(json!({"path": path, "format": "qcow2", "overlay": "temp"}));
    assert_eq!(send(&mut driver, OUT, 3, &[9; 512]), OK);
    assert_eq!(read(&mut driver, 2, 1024), ([[1; 512], [9; 512]].concat(), OK));
    drop(driver);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Its tables are gone, and without them all data would be the backing file's.
#[test]
fn image_that_is_truncated_fails_and_does_not_show_its_backing_file() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", 64 << 10, Some(("base.img", "raw")));
    let mut driver = start(with_backing(&path, &[&base]));
    assert_eq!(send(&mut driver, OUT, 0, &[0xaa; 512]), OK);
    drop(driver);
    let mut driver = start(with_backing(&path, &[&base]));
    File::options().write(true).open(&path).unwrap().set_len(1 << 16).unwrap();
    assert_eq!(read(&mut driver, 0, 512).1, IOERR);
    assert_eq!(send(&mut driver, OUT, 0, &[0xbb; 512]), IOERR);
    assert_eq!(told(&driver), ["a read at byte 0 of the disk failed: the file has become shorter"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 16, "it isn't made longer again");
}

/// imago opens it again before the guest's first write.
#[test]
fn backing_file_that_grows_leaves_the_disk_as_it_was() {
    let images = Images::new();
    let base = images.create_raw("base.img");
    let path = images.create("a.qcow2", 128 << 10, Some(("base.img", "raw")));
    let mut driver = start(with_backing(&path, &[&base]));
    std::fs::write(&base, [7; 128 << 10]).unwrap();
    assert_eq!(read(&mut driver, 127, 1024), ([[7; 512], [0; 512]].concat(), OK));
    assert_eq!(send(&mut driver, OUT, 0, &[0xaa; 512]), OK);
    assert_eq!(read(&mut driver, 127, 1024), ([[7; 512], [0; 512]].concat(), OK));
}

/// With zeros for what it has lost.
#[test]
fn image_that_is_truncated_is_not_made_longer_by_a_write() {
    let images = Images::new();
    let path = images.create("a.qcow2", 64 << 10, None);
    let mut driver = disk(&path);
    assert_eq!(send(&mut driver, OUT, 0, &[0xaa; 64 << 10]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    // Its last cluster is the disk's.
    let len = std::fs::metadata(&path).unwrap().len() - (64 << 10);
    File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    assert_eq!(send(&mut driver, OUT, 127, &[0xbb; 512]), IOERR);
    assert_eq!(told(&driver), ["a write at byte 65024 of the disk failed: the file has become shorter"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
}
