//! The dirty bit of an image that is being written, in case the monitor is killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;
use vmm_virtio::testing::{DEADLINE, Driver};

use crate::disk::*;
use crate::images::Images;
use crate::tools::trial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("image_is_marked_dirty_from_the_first_write_to_the_end", marked_until_the_end),
        trial("image_that_was_read_alone_is_not_marked", read_alone_is_not_marked),
        trial("image_is_not_dirty_when_all_is_flushed_and_at_rest", clean_at_rest),
        trial("image_stays_dirty_at_rest_with_something_unflushed", dirty_at_rest_if_unflushed),
        trial("image_of_a_killed_monitor_is_refused_and_loses_nothing_that_was_flushed", killed),
        trial("image_of_version_2_is_used_with_a_warning", version_2_is_warned_of),
    ]
}

fn create(more: &str) -> Images {
    let images = Images::new();
    images.qemu_img(&format!("create -f qcow2 {more} DIR/a.qcow2 64M"));
    images
}

/// Whether the dirty bit is set, the lowest of the image's incompatible features.
fn is_dirty(images: &Images) -> bool {
    std::fs::read(images.path("a.qcow2")).unwrap()[79] & 1 != 0
}

fn wait_until_clean(images: &Images) {
    let begun = Instant::now();
    while is_dirty(images) {
        assert!(begun.elapsed() < DEADLINE, "it is still marked");
        sleep(Duration::from_millis(10));
    }
}

fn write(disk: &mut Driver, sector: u64, byte: u8) {
    assert_eq!(send(disk, OUT, sector, &[byte; 4096]), OK);
}

fn flush(disk: &mut Driver) {
    assert_eq!(send(disk, FLUSH, 0, &[]), OK);
}

fn marked_until_the_end() {
    let images = create("");
    let mut disk = images.disk("a.qcow2", json!({}));
    write(&mut disk, 0, 1);
    assert!(is_dirty(&images));
    flush(&mut disk);
    write(&mut disk, 8, 2);
    assert!(is_dirty(&images), "the next write comes long before a rest");
    drop(disk);
    assert!(!is_dirty(&images));
    let said = images.qemu_img("check DIR/a.qcow2");
    assert!(said.contains("No errors were found"), "{said}");
}

fn read_alone_is_not_marked() {
    let images = create("");
    let before = std::fs::read(images.path("a.qcow2")).unwrap();
    let mut disk = images.disk("a.qcow2", json!({}));
    assert_eq!(read(&mut disk, 0, 512), (vec![0; 512], OK));
    flush(&mut disk);
    assert_eq!(std::fs::read(images.path("a.qcow2")).unwrap(), before);
}

fn clean_at_rest() {
    let images = create("");
    let mut disk = images.disk("a.qcow2", json!({}));
    write(&mut disk, 0, 1);
    flush(&mut disk);
    wait_until_clean(&images);
    write(&mut disk, 8, 2);
    assert!(is_dirty(&images), "marked again");
}

/// Another disk's calls of `rest`, which are as frequent, show that this one has had some.
fn dirty_at_rest_if_unflushed() {
    let (unflushed, flushed) = (create(""), create(""));
    let mut disk = unflushed.disk("a.qcow2", json!({}));
    write(&mut disk, 0, 1);
    let mut other = flushed.disk("a.qcow2", json!({}));
    (0..2).for_each(|_| {
        write(&mut other, 0, 1);
        flush(&mut other);
        wait_until_clean(&flushed);
    });
    assert!(is_dirty(&unflushed));
}

/// A kill leaves what is in the file, so it is copied while the disk is in use.
fn killed() {
    let images = create("");
    let mut disk = images.disk("a.qcow2", json!({}));
    write(&mut disk, 0, 1);
    flush(&mut disk);
    // To other tables, some of which are only in memory.
    (1..64).for_each(|mib| write(&mut disk, mib << 11, 2));
    std::fs::copy(images.path("a.qcow2"), images.path("killed.qcow2")).unwrap();
    drop(disk);
    let message = ".path: DIR/killed.qcow2 is marked dirty because it wasn't closed: repair it, qemu-img check -r all DIR/killed.qcow2";
    assert_eq!(images.refusal("killed.qcow2", json!({})), message);
    images.qemu_img("check -r all DIR/killed.qcow2");
    let mut disk = images.disk("killed.qcow2", json!({}));
    assert_eq!(read(&mut disk, 0, 4096), (vec![1; 4096], OK));
}

fn version_2_is_warned_of() {
    let images = create("-o compat=0.10");
    let mut disk = images.disk("a.qcow2", json!({}));
    // A response means that it has started.
    assert_eq!(read(&mut disk, 0, 512).1, OK);
    let said = disk.control().take_notices().texts;
    assert!(
        said.len() == 1 && said[0].starts_with("the image is of version 2, which can't be marked"),
        "{said:?}"
    );
    let before = std::fs::read(images.path("a.qcow2")).unwrap();
    write(&mut disk, 0, 1);
    // Bytes that version 2 doesn't have, and that may have other contents.
    assert_eq!(std::fs::read(images.path("a.qcow2")).unwrap()[72..104], before[72..104]);
    drop(disk);
    images.qemu_img("amend -f qcow2 -o compat=v3 DIR/a.qcow2");
    let mut disk = images.disk("a.qcow2", json!({}));
    assert_eq!(read(&mut disk, 0, 512).1, OK);
    assert!(disk.control().take_notices().texts.is_empty());
}
