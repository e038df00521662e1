//! Images created by qemu-img, and its view of those that a guest has written.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::DeviceError;
use vmm_virtio::testing::Driver;

use crate::disk::*;
use crate::tools::{qemu_img, qemu_io, trial};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("image_encrypted_by_luks_is_refused", luks_is_refused),
        trial("image_encrypted_by_aes_is_refused", aes_is_refused),
        trial("backing_file_that_is_encrypted_is_refused", encrypted_backing_is_refused),
        trial("image_with_extended_l2_entries_is_refused", extended_l2_is_refused),
        trial("image_with_external_data_is_refused_and_keeps_data_file_raw", external_data_is_refused),
        trial("image_that_is_dirty_is_refused_until_it_is_repaired", dirty_is_refused),
        trial("image_that_is_corrupt_opens_read_only", corrupt_opens_read_only),
        trial("image_with_bitmaps_is_looked_at_without_a_change", bitmaps_survive_a_look),
        trial(
            "image_with_bitmaps_loses_them_with_the_first_write_and_says_so_before",
            bitmaps_end_with_a_write,
        ),
        trial("image_compressed_by_zstd_is_read_and_written", || compressed_is_read_and_written("zstd")),
        trial("image_compressed_by_zlib_is_read_and_written", || compressed_is_read_and_written("zlib")),
        trial("zeros_and_discards_in_an_image_compressed_by_zstd", zstd_zeroes_and_discards),
        trial("cluster_that_is_compressed_is_read_once_for_a_request", compressed_is_read_once),
        trial("backing_file_compressed_by_zstd_is_read_and_copied", zstd_backing),
        trial("zeros_in_a_disk_smaller_than_a_cluster", zeros_in_a_small_disk),
        trial("image_of_version_2_takes_zeros", version_2_takes_zeros),
        trial("image_of_version_2_has_its_backing_files_format", version_2_has_a_backing_format),
        trial("image_with_a_snapshot_keeps_it", snapshot_is_kept),
        trial("image_of_512_byte_clusters_is_read_and_written", || clusters_of("512")),
        trial("image_whose_refcount_table_grows_stays_whole", refcount_table_grows),
        trial("image_of_2_mib_clusters_is_read_and_written", || clusters_of("2M")),
    ]
}

/// A directory for images.
pub(crate) struct Images(TempDir);

impl Images {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs qemu-img, with DIR for the directory in its arguments.
    pub(crate) fn qemu_img(&self, arguments: &str) -> String {
        let arguments = self.with_dir(arguments);
        // For LUKS, QEMU measures how many rounds of hashing fit into a time, and gives up if the kernel has counted no CPU time for
        // them (crypto/pbkdf.c, qcrypto_pbkdf2_count_iters). On a busy host that happens.
        let is_unmeasured = |said: &str| said.contains("Unable to get accurate CPU usage");
        let mut tries = 0;
        let (could, said) = loop {
            tries += 1;
            match qemu_img(&arguments) {
                (false, said) if is_unmeasured(&said) && tries < 100 => {}
                done => break done,
            }
        };
        assert!(could, "qemu-img {arguments}: {said}");
        said
    }

    pub(crate) fn with_dir(&self, text: &str) -> String {
        text.replace("DIR", self.0.path().to_str().unwrap())
    }

    /// The message for a disk that can't be opened, with DIR for the directory. The image must be unchanged.
    pub(crate) fn refusal(&self, name: &str, more: Value) -> String {
        let before = std::fs::read(self.path(name)).unwrap();
        let message = self.message(try_open(self.fields(name, more)).err().expect("it is refused"));
        assert_eq!(std::fs::read(self.path(name)).unwrap(), before, "the refusal changed the image");
        message
    }

    /// The message, with DIR for the directory.
    pub(crate) fn message(&self, error: DeviceError) -> String {
        error.to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }

    fn fields(&self, name: &str, mut more: Value) -> Value {
        more["path"] = json!(self.path(name));
        if more["format"].is_null() {
            more["format"] = json!("qcow2");
        }
        more
    }

    pub(crate) fn disk(&self, name: &str, more: Value) -> Driver {
        start(self.fields(name, more))
    }

    /// A raw image of [`LEN`] bytes in which every sector is filled with its number modulo 251.
    fn create_raw(&self, name: &str) -> PathBuf {
        std::fs::write(self.path(name), pattern()).unwrap();
        self.path(name)
    }

    /// Checks that the image is consistent and has these bytes.
    fn assert_holds(&self, name: &str, bytes: &[u8]) {
        let said = self.qemu_img(&format!("check DIR/{name}"));
        assert!(said.contains("No errors were found"), "{said}");
        std::fs::write(self.path("expected.raw"), bytes).unwrap();
        let said = self.qemu_img(&format!("compare -F raw DIR/{name} DIR/expected.raw"));
        assert!(said.contains("Images are identical"), "{said}");
    }
}

/// Not a multiple of 64 KiB clusters, so that the last one extends beyond the disk.
const LEN: usize = (1 << 20) + 3 * 4096;

fn pattern() -> Vec<u8> {
    (0..LEN).map(|at| (at / 512 % 251) as u8).collect()
}

pub(crate) const SECRET: &str = "--object secret,id=s,data=abc";

fn luks_is_refused() {
    let images = Images::new();
    images.qemu_img(&format!(
        "create -f qcow2 {SECRET} -o encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s DIR/e.qcow2 16M"
    ));
    let message = images.refusal("e.qcow2", json!({}));
    assert_eq!(
        message,
        ".path: DIR/e.qcow2 is encrypted (LUKS), which isn't supported: decrypt it into another image, qemu-img convert \
         --object secret,id=key,file=KEYFILE --image-opts driver=qcow2,file.filename=DIR/e.qcow2,encrypt.key-secret=key \
         -O qcow2 NEW.qcow2"
    );
    assert_eq!(images.refusal("e.qcow2", json!({"read_only": true})), message);
    assert_eq!(images.refusal("e.qcow2", json!({"overlay": "temp"})), message);
    // The command in the message helps.
    std::fs::write(images.path("KEYFILE"), "abc").unwrap();
    let (_, command) = message.split_once("qemu-img ").unwrap();
    let command = command.replace("KEYFILE", "DIR/KEYFILE").replace("NEW.qcow2", "DIR/NEW.qcow2");
    images.qemu_img(&command);
    assert_eq!(read(&mut images.disk("NEW.qcow2", json!({})), 0, 512), (vec![0; 512], OK));
}

fn aes_is_refused() {
    let images = Images::new();
    images.qemu_img(&format!(
        "create -f qcow2 {SECRET} -o encrypt.format=aes,encrypt.key-secret=s DIR/e.qcow2 16M"
    ));
    let message = images.refusal("e.qcow2", json!({}));
    assert!(
        message.starts_with(".path: DIR/e.qcow2 is encrypted (AES), which isn't supported: "),
        "{message}"
    );
}

fn encrypted_backing_is_refused() {
    let images = Images::new();
    images.qemu_img(&format!(
        "create -f qcow2 {SECRET} -o encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s DIR/e.qcow2 16M"
    ));
    images.qemu_img("create -u -f qcow2 -b e.qcow2 -F qcow2 DIR/a.qcow2 16M");
    let message = images.refusal("a.qcow2", json!({"backing": [images.path("e.qcow2")]}));
    assert!(message.starts_with(".backing[0]: DIR/e.qcow2 is encrypted (LUKS), "), "{message}");
}

fn extended_l2_is_refused() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 -o extended_l2=on DIR/a.qcow2 16M");
    assert_eq!(
        images.refusal("a.qcow2", json!({})),
        ".path: DIR/a.qcow2 has extended L2 entries, which aren't supported: convert it, qemu-img convert -O qcow2 \
         DIR/a.qcow2 NEW.qcow2"
    );
    images.qemu_img("convert -O qcow2 DIR/a.qcow2 DIR/NEW.qcow2");
    assert!(try_open(images.fields("NEW.qcow2", json!({}))).is_ok());
}

fn external_data_is_refused() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 -o data_file=DIR/data.raw,data_file_raw=on DIR/a.qcow2 16M");
    assert_eq!(
        images.refusal("a.qcow2", json!({})),
        ".path: DIR/a.qcow2 keeps its data in another file, which isn't supported: convert it, qemu-img convert -O qcow2 \
         DIR/a.qcow2 NEW.qcow2"
    );
    let said = images.qemu_img("info DIR/a.qcow2");
    assert!(said.contains("data file raw: true"), "{said}");
    images.qemu_img("convert -O qcow2 DIR/a.qcow2 DIR/NEW.qcow2");
    assert!(try_open(images.fields("NEW.qcow2", json!({}))).is_ok());
}

fn dirty_is_refused() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 -o lazy_refcounts=on DIR/a.qcow2 16M");
    // It exits without closing the image.
    let (could, _) =
        qemu_io(&["-f", "qcow2"], &images.path("a.qcow2"), &["write -P 5 0 64k", "flush", "abort"]);
    assert!(!could);
    let message = ".path: DIR/a.qcow2 is marked dirty because it wasn't closed: repair it, qemu-img check -r all DIR/a.qcow2";
    assert_eq!(images.refusal("a.qcow2", json!({})), message);
    assert_eq!(images.refusal("a.qcow2", json!({"read_only": true})), message);
    images.qemu_img("check -r all DIR/a.qcow2");
    assert_eq!(read(&mut images.disk("a.qcow2", json!({})), 0, 512), (vec![5; 512], OK));
}

fn corrupt_opens_read_only() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 DIR/a.qcow2 16M");
    let (could, said) = qemu_io(&["-f", "qcow2"], &images.path("a.qcow2"), &["write -P 5 0 64k"]);
    assert!(could, "{said}");
    // The last byte of the incompatible features.
    set_byte(&images.path("a.qcow2"), 79, 2);
    assert_eq!(
        images.refusal("a.qcow2", json!({})),
        ".path: DIR/a.qcow2 is marked corrupt: set \"read_only\" to read what is left, or repair it, qemu-img check \
         -r all DIR/a.qcow2"
    );
    let before = std::fs::read(images.path("a.qcow2")).unwrap();
    let mut driver = images.disk("a.qcow2", json!({"read_only": true}));
    assert_eq!(read(&mut driver, 0, 512), (vec![5; 512], OK));
    drop(driver);
    let mut driver = images.disk("a.qcow2", json!({"overlay": "temp"}));
    assert_eq!(send(&mut driver, OUT, 0, &[6; 512]), OK);
    assert_eq!(read(&mut driver, 0, 1024), ([[6; 512], [5; 512]].concat(), OK));
    drop(driver);
    assert_eq!(std::fs::read(images.path("a.qcow2")).unwrap(), before);
    images.qemu_img("check -r all DIR/a.qcow2");
    assert!(try_open(images.fields("a.qcow2", json!({}))).is_ok());
}

fn set_byte(path: &Path, at: u64, value: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[value], at).unwrap();
}

fn with_bitmap() -> Images {
    let images = Images::new();
    images.qemu_img("create -f qcow2 DIR/b.qcow2 16M");
    images.qemu_img("bitmap --add DIR/b.qcow2 b0");
    images
}

fn bitmaps_survive_a_look() {
    let images = with_bitmap();
    let before = std::fs::read(images.path("b.qcow2")).unwrap();
    drop(try_open(images.fields("b.qcow2", json!({}))).unwrap());
    // Messages about other problems.
    let message = images.refusal("b.qcow2", json!({"backing": [images.path("none")]}));
    assert!(message.contains("has no backing file: remove it"), "{message}");
    let mut driver = images.disk("b.qcow2", json!({}));
    assert_eq!(read(&mut driver, 0, 512).1, OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    driver.reset();
    drop(driver);
    assert_eq!(std::fs::read(images.path("b.qcow2")).unwrap(), before);
}

fn bitmaps_end_with_a_write() {
    let images = with_bitmap();
    assert!(!images.qemu_img("info DIR/b.qcow2").contains("in-use"));
    let mut driver = images.disk("b.qcow2", json!({}));
    assert_eq!(read(&mut driver, 0, 512).1, OK);
    assert_eq!(
        driver.control().take_notices().texts,
        [
            "the image has dirty bitmaps, which are lost with the guest's first write: use \"read_only\" or an \"overlay\" to \
             keep them"
        ]
    );
    assert_eq!(autoclear(&images, "b.qcow2"), 1);
    assert_eq!(send(&mut driver, OUT, 0, &[7; 512]), OK);
    assert_eq!(autoclear(&images, "b.qcow2"), 0);
    // Reported once.
    driver.reset();
    driver.init(FEATURES);
    assert_eq!(read(&mut driver, 0, 512), (vec![7; 512], OK));
    assert!(driver.control().take_notices().texts.is_empty());
    drop(driver);
    assert!(images.disk("b.qcow2", json!({"read_only": true})).control().take_notices().texts.is_empty());
    let said = images.qemu_img("info DIR/b.qcow2");
    assert!(!said.contains("name: b0") || said.contains("in-use"), "{said}");
}

/// The last byte of the autoclear features.
fn autoclear(images: &Images, name: &str) -> u8 {
    std::fs::read(images.path(name)).unwrap()[95]
}

/// A disk of [`pattern`] in compressed clusters only.
fn compressed(kind: &str) -> Images {
    let images = Images::new();
    images.create_raw("p.raw");
    images.qemu_img(&format!(
        "convert -c -f raw -O qcow2 -o compression_type={kind},cluster_size=64k DIR/p.raw DIR/c.qcow2"
    ));
    images
}

fn read_all(driver: &mut Driver) -> Vec<u8> {
    let (bytes, status) = read(driver, 0, LEN as u32);
    assert_eq!(status, OK);
    bytes
}

fn compressed_is_read_and_written(kind: &str) {
    let images = compressed(kind);
    let mut expected = pattern();
    let mut driver = images.disk("c.qcow2", json!({}));
    assert!(read_all(&mut driver) == expected);
    // Within a cluster, across the border of two, a whole one, and in the last one, which extends beyond the
    // disk.
    let last = LEN - 4096;
    for (at, len) in [(3 * 512, 512), ((64 << 10) * 3 - 1024, 2048), ((64 << 10) * 5, 64 << 10), (last, 1024)]
    {
        assert_eq!(send(&mut driver, OUT, (at / 512) as u64, &vec![0xfd; len]), OK);
        expected[at..at + len].fill(0xfd);
    }
    assert!(read_all(&mut driver) == expected);
    drop(driver);
    images.assert_holds("c.qcow2", &expected);
    let mut driver = images.disk("c.qcow2", json!({"read_only": true}));
    assert!(read_all(&mut driver) == expected);
}

/// Bytes read by this process so far.
fn bytes_read() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap();
    counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// For any part of it, the whole cluster is read and decompressed: for a large one, 32 times the requested
/// length.
fn compressed_is_read_once() {
    let images = Images::new();
    // Five clusters that compress to about half: 16 of 256 values in random order.
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    let raw: Vec<u8> = (0..5 << 18).map(|_| next()).collect();
    std::fs::write(images.path("p.raw"), &raw).unwrap();
    images.qemu_img(
        "convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=256k DIR/p.raw DIR/c.qcow2",
    );
    let mut driver = images.disk("c.qcow2", json!({"read_only": true}));
    // Including the tables.
    assert_eq!(read(&mut driver, 0, 512), (raw[..512].to_vec(), OK));
    let before = bytes_read();
    let (bytes, status) = read(&mut driver, 256, 1 << 20);
    let used = bytes_read() - before;
    assert!(status == OK && bytes[..] == raw[128 << 10..][..1 << 20]);
    assert!(used < 6 << 17, "{used} bytes for five clusters of about 128 KiB");
}

fn zstd_zeroes_and_discards() {
    let images = compressed("zstd");
    let mut expected = pattern();
    let mut driver = images.disk("c.qcow2", json!({}));
    // Sectors 100 to 399: the rest of a cluster, a whole one, and the start of another.
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(100, 300, 0)), OK);
    expected[100 * 512..400 * 512].fill(0);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(700, 300, 1)), OK);
    expected[700 * 512..1000 * 512].fill(0);
    assert!(read_all(&mut driver) == expected);
    // A cluster that is no longer needed.
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(1024, 128, 0)), OK);
    expected[1024 * 512..1152 * 512].fill(0);
    assert!(read_all(&mut driver) == expected);
    drop(driver);
    images.assert_holds("c.qcow2", &expected);
}

fn zstd_backing() {
    let images = compressed("zstd");
    images.qemu_img("create -f qcow2 -b c.qcow2 -F qcow2 DIR/top.qcow2");
    let before = std::fs::read(images.path("c.qcow2")).unwrap();
    let mut expected = pattern();
    let mut driver = images.disk("top.qcow2", json!({"backing": [images.path("c.qcow2")]}));
    assert!(read_all(&mut driver) == expected);
    assert_eq!(send(&mut driver, OUT, 9, &[0xfd; 512]), OK);
    expected[9 * 512..10 * 512].fill(0xfd);
    assert!(read_all(&mut driver) == expected);
    drop(driver);
    assert_eq!(std::fs::read(images.path("c.qcow2")).unwrap(), before);
    images.assert_holds("top.qcow2", &expected);
}

/// Its last cluster, of which it has a part, is its first one too.
fn zeros_in_a_small_disk() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 DIR/small.qcow2 8K");
    let mut expected = vec![0xfd; 8 << 10];
    let mut driver = images.disk("small.qcow2", json!({}));
    assert_eq!(send(&mut driver, OUT, 0, &expected), OK);
    for (sector, sectors, unmap) in [(2, 3, 0), (8, 2, 1)] {
        assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(sector, sectors, unmap)), OK);
        expected[sector as usize * 512..][..sectors as usize * 512].fill(0);
    }
    let (bytes, status) = read(&mut driver, 0, 8 << 10);
    assert!(status == OK && bytes[..] == expected);
    drop(driver);
    images.assert_holds("small.qcow2", &expected);
}

fn version_2_takes_zeros() {
    let images = Images::new();
    images.create_raw("p.raw");
    images.qemu_img("convert -f raw -O qcow2 -o compat=0.10 DIR/p.raw DIR/a.qcow2");
    let mut expected = pattern();
    let mut driver = images.disk("a.qcow2", json!({}));
    // Longer than the monitor's buffer, and not whole clusters.
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(10, 600, 0)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(1000, 200, 1)), OK);
    expected[10 * 512..610 * 512].fill(0);
    expected[1000 * 512..1200 * 512].fill(0);
    assert!(read_all(&mut driver) == expected);
    // A hint that it can't follow.
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(1280, 128, 0)), OK);
    assert!(read_all(&mut driver) == expected);
    drop(driver);
    images.assert_holds("a.qcow2", &expected);
}

fn version_2_has_a_backing_format() {
    let images = Images::new();
    images.create_raw("p.raw");
    images.qemu_img("create -f qcow2 -o compat=0.10 -b p.raw -F raw DIR/a.qcow2");
    let mut driver = images.disk("a.qcow2", json!({"backing": [images.path("p.raw")]}));
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(10, 10, 1)), OK);
    let mut expected = pattern();
    expected[10 * 512..20 * 512].fill(0);
    assert!(read_all(&mut driver) == expected);
    drop(driver);
    images.assert_holds("a.qcow2", &expected);
    let said = images.qemu_img("info DIR/a.qcow2");
    assert!(said.contains("backing file format: raw"), "{said}");
}

fn snapshot_is_kept() {
    let images = Images::new();
    images.create_raw("p.raw");
    images.qemu_img("convert -f raw -O qcow2 DIR/p.raw DIR/a.qcow2");
    images.qemu_img("snapshot -c before DIR/a.qcow2");
    let mut expected = pattern();
    let mut driver = images.disk("a.qcow2", json!({}));
    assert_eq!(send(&mut driver, OUT, 100, &[0xfd; 4096]), OK);
    expected[100 * 512..108 * 512].fill(0xfd);
    drop(driver);
    images.assert_holds("a.qcow2", &expected);
    images.qemu_img("snapshot -a before DIR/a.qcow2");
    images.assert_holds("a.qcow2", &pattern());
}

fn clusters_of(len: &str) {
    let images = Images::new();
    images.create_raw("p.raw");
    images.qemu_img(&format!("convert -f raw -O qcow2 -o cluster_size={len} DIR/p.raw DIR/a.qcow2"));
    let mut expected = pattern();
    let mut driver = images.disk("a.qcow2", json!({}));
    assert!(read_all(&mut driver) == expected);
    assert_eq!(send(&mut driver, OUT, 77, &[0xfd; 1024]), OK);
    expected[77 * 512..79 * 512].fill(0xfd);
    drop(driver);
    images.assert_holds("a.qcow2", &expected);
}

/// With clusters of 512 bytes, a refcount table of one cluster covers 8 MiB: it moves, which changes the
/// header. The rest of the header stays.
/// the header says stays.
fn refcount_table_grows() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 -o cluster_size=512,lazy_refcounts=on DIR/a.qcow2 32M");
    let head = |range: std::ops::Range<usize>| std::fs::read(images.path("a.qcow2")).unwrap()[range].to_vec();
    let (tables, others) = (head(48..60), [head(0..36), head(60..512)]);
    let mut driver = images.disk("a.qcow2", json!({}));
    for at in 0..16 {
        assert_eq!(send(&mut driver, OUT, at * 2048, &vec![at as u8 + 1; 1 << 20]), OK);
    }
    drop(driver);
    assert_ne!(head(48..60), tables);
    assert_eq!([head(0..36), head(60..512)], others);
    let mut expected: Vec<u8> = (0..16).flat_map(|at| vec![at + 1; 1 << 20]).collect();
    expected.resize(32 << 20, 0);
    images.assert_holds("a.qcow2", &expected);
}
