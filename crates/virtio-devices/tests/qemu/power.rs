//! Power failures: of what was written since the last sync, any part may be on the disk.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use vmm_virtio::testing::Driver;

use crate::disk::*;
use crate::images::Images;
use crate::tools::{qemu_img, trial_with};
use crate::trace::{self, Event};

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name, test: fn()| trial_with(name, &["strace"], test);
    vec![
        trial("power_failure_loses_nothing_flushed_of_a_plain_image", plain),
        trial("power_failure_loses_nothing_flushed_of_an_image_with_a_backing_file", backed),
        trial("power_failure_loses_nothing_flushed_of_an_image_with_a_snapshot", snapshot),
        trial("power_failure_loses_nothing_flushed_of_a_compressed_image", compressed),
        trial("power_failure_loses_nothing_flushed_where_space_is_used_again", freed),
        trial(
            "power_failure_loses_nothing_flushed_where_a_copied_table_uses_space_again",
            freed_with_snapshot,
        ),
        trial("flush_syncs_twice_for_new_clusters_and_once_for_old_ones", syncs_are_few),
    ]
}

/// Set in the environment of this program as a child: the disk's config, the workload, and where to write marks.
const CONFIG: &str = "POWER_CONFIG";
const WORKLOAD: &str = "POWER_WORKLOAD";
const MARKS: &str = "POWER_MARKS";

/// Size of the disk in sectors: 4 L2 tables with clusters of 1 KiB.
const DISK: u64 = 1024;
const SECTOR: usize = 512;
const CLUSTERS: &str = "-o cluster_size=1k";

/// A write of `count` sectors of bytes `fill`, or of zeros that frees their space, or a flush.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Write { sector: u64, count: u64, fill: u8 },
    Zero { sector: u64, count: u32 },
    Flush,
}

impl Step {
    /// Sends it, and returns its status.
    pub(crate) fn send(self, disk: &mut Driver) -> u8 {
        match self {
            Self::Write { sector, count, fill } => {
                send(disk, OUT, sector, &vec![fill; SECTOR * count as usize])
            }
            // With VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP.
            Self::Zero { sector, count } => send(disk, WRITE_ZEROES, 0, &segment(sector, count, 1)),
            Self::Flush => send(disk, FLUSH, 0, &[]),
        }
    }
}

/// The workload of this name.
fn workload(name: &str) -> Vec<Step> {
    let flushed = |sector, fill| [Step::Write { sector, count: 1, fill }, Step::Flush];
    match name {
        // Requests of up to 3 sectors all over the disk, which begin and end within clusters.
        "random" => {
            let mut seed = 7_u64;
            let mut next = |below: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) % below
            };
            let write = |fill, sector, count| Step::Write { sector, count, fill };
            let mut steps: Vec<Step> =
                (101..125).map(|fill| write(fill, next(DISK - 3), 1 + next(3))).collect();
            (1..=6).rev().for_each(|group| steps.insert(group * 4, Step::Flush));
            steps
        }
        // What is freed is used again: by the data of the same table, and by a new table and its data.
        "reuse" => {
            let write = |sector, count, fill| Step::Write { sector, count, fill };
            let reused =
                |sector, other, fill| [Step::Zero { sector, count: 2 }, write(other, 1, fill), Step::Flush];
            let filled = [write(0, 32, 101), Step::Flush];
            let others = [(0, 40, 102), (4, 300, 103), (8, 44, 104), (12, 600, 105), (16, 602, 106)];
            filled
                .into_iter()
                .chain(others.into_iter().flat_map(|(at, other, fill)| reused(at, other, fill)))
                .collect()
        }
        // All of one L2 table's clusters, one for each flush.
        "fill" => (0..128).flat_map(|cluster| flushed(cluster * 2, 101)).collect(),
        // And then again.
        "overwrite" => {
            let again = (0..128).flat_map(|cluster| flushed(cluster * 37 % 128 * 2, 102));
            workload("fill").into_iter().chain(again).collect()
        }
        _ => panic!("{name}"),
    }
}

/// In a child: executes the workload. Marks are the number of each step before it, and `done` after a flush.
pub(crate) fn run_child() -> Option<ExitCode> {
    let config: Value = serde_json::from_str(&std::env::var(CONFIG).ok()?).unwrap();
    let mut marks = File::create(std::env::var(MARKS).unwrap()).unwrap();
    let mut mark = |text: String| marks.write_all(text.as_bytes()).unwrap();
    let mut disk = start(config);
    for (number, step) in workload(&std::env::var(WORKLOAD).unwrap()).into_iter().enumerate() {
        mark(number.to_string());
        assert_eq!(step.send(&mut disk), OK);
        if matches!(step, Step::Flush) {
            mark("done".to_owned());
        }
    }
    drop(disk);
    Some(ExitCode::SUCCESS)
}

/// Executes the workload on `a.qcow2`.
fn traced(images: &Images, mut fields: Value, workload: &str) -> Vec<Event> {
    let (image, marks) = (images.path("a.qcow2"), images.path("marks"));
    (fields["path"], fields["format"]) = (json!(image), json!("qcow2"));
    File::create(&marks).unwrap();
    let variables = [(CONFIG, &*fields.to_string()), (WORKLOAD, workload), (MARKS, marks.to_str().unwrap())];
    trace::of(&images.path(""), &image, &marks, &variables)
}

/// The disk's bytes before the workload.
fn pattern() -> Vec<u8> {
    (0..DISK).flat_map(|sector| [(sector % 100 + 1) as u8; SECTOR]).collect()
}

/// The values that each sector may have after a power failure.
pub(crate) struct AllowedContents(pub(crate) Vec<Vec<u8>>);

impl AllowedContents {
    /// If the first `flushed` steps are on stable storage and `begun` may be.
    fn after(before: &[u8], steps: &[Step], flushed: usize, begun: usize) -> Self {
        let mut sectors: Vec<Vec<u8>> = before.chunks(SECTOR).map(|sector| vec![sector[0]]).collect();
        for (number, step) in steps[..begun].iter().enumerate() {
            let (sector, count, fill) = match *step {
                Step::Write { sector, count, fill } => (sector, count, fill),
                Step::Zero { sector, count } => (sector, count.into(), 0),
                Step::Flush => continue,
            };
            for values in &mut sectors[sector as usize..][..count as usize] {
                if number < flushed {
                    values.clear();
                }
                values.push(fill);
            }
        }
        Self(sectors)
    }

    pub(crate) fn assert_holds(&self, disk: &[u8], context: &str) {
        assert_eq!(disk.len(), self.0.len() * SECTOR);
        for (number, (sector, values)) in disk.chunks(SECTOR).zip(&self.0).enumerate() {
            let is_whole = sector.iter().all(|byte| *byte == sector[0]);
            assert!(
                is_whole && values.contains(&sector[0]),
                "sector {number} is {:02x?}.., not one of {values:?}: {context}",
                &sector[..4]
            );
        }
    }
}

/// Subsets of `count` writes: all if there are few, otherwise those with at most one write or without at most one.
fn subsets(count: usize) -> Vec<Vec<bool>> {
    if count <= 5 {
        return (0..1 << count)
            .map(|bits| (0..count).map(|index| bits >> index & 1 != 0).collect())
            .collect();
    }
    let one = |index, is| (0..count).map(|other| (other == index) == is).collect();
    (0..=count).flat_map(|index| [one(index, true), one(index, false)]).collect()
}

fn apply(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    image.resize(image.len().max(end), 0);
    image[start..end].copy_from_slice(bytes);
}

/// Executes the workload, and checks the image after every power failure.
fn survives(images: &Images, fields: Value, before: &[u8], name: &str) {
    let mut durable = std::fs::read(images.path("a.qcow2")).unwrap();
    let steps = workload(name);
    let events = traced(images, fields, name);
    let mut seen = HashSet::new();
    let mut unsynced = Vec::new();
    let (mut flushed, mut begun) = (0, 0);
    for event in events.into_iter().chain([Event::Sync]) {
        match event {
            Event::Write { offset, bytes } => unsynced.push((offset, bytes)),
            Event::Mark(mark) if mark == "done" => flushed = begun,
            Event::Mark(mark) => begun = mark.parse::<usize>().unwrap() + 1,
            Event::Sync => {
                let allowed = AllowedContents::after(before, &steps, flushed, begun);
                for subset in subsets(unsynced.len()) {
                    let mut image = durable.clone();
                    let kept = unsynced.iter().zip(&subset).filter(|(_, is_kept)| **is_kept);
                    kept.for_each(|((offset, bytes), _)| apply(&mut image, *offset, bytes));
                    if seen.insert((flushed, image.clone())) {
                        let context = format!("after {begun} steps, {flushed} flushed, with {subset:?}");
                        check(images, &image, &allowed, &context);
                    }
                }
                unsynced.drain(..).for_each(|(offset, bytes)| apply(&mut durable, offset, &bytes));
            }
        }
    }
    assert_eq!((flushed, begun), (steps.len(), steps.len()), "the last step is a flush");
    assert!(seen.len() > 50, "{} power failures", seen.len());
}

/// Repairs the image if it is marked dirty, and checks its contents.
fn check(images: &Images, image: &[u8], allowed: &AllowedContents, context: &str) {
    let path: PathBuf = images.path("cut.qcow2");
    std::fs::write(&path, image).unwrap();
    if image[79] & 1 != 0 {
        // It fails if there was something to repair.
        qemu_img(&images.with_dir("check -r all DIR/cut.qcow2"));
    }
    let (is_clean, said) = qemu_img(&images.with_dir("check DIR/cut.qcow2"));
    assert!(is_clean, "{said}: {context}");
    images.qemu_img("convert -O raw DIR/cut.qcow2 DIR/cut.raw");
    allowed.assert_holds(&std::fs::read(images.path("cut.raw")).unwrap(), context);
}

/// A directory with `base.raw`, which has the pattern.
fn with_base() -> Images {
    let images = Images::new();
    std::fs::write(images.path("base.raw"), pattern()).unwrap();
    images
}

fn plain() {
    let images = Images::new();
    images.qemu_img(&format!("create -f qcow2 {CLUSTERS} DIR/a.qcow2 {}", DISK * SECTOR as u64));
    survives(&images, json!({}), &[0; DISK as usize * SECTOR], "random");
}

fn freed() {
    let images = Images::new();
    images.qemu_img(&format!("create -f qcow2 {CLUSTERS} DIR/a.qcow2 {}", DISK * SECTOR as u64));
    survives(&images, json!({}), &[0; DISK as usize * SECTOR], "reuse");
}

fn backed() {
    let images = with_base();
    images.qemu_img(&format!("create -f qcow2 {CLUSTERS} -b DIR/base.raw -F raw DIR/a.qcow2"));
    survives(&images, json!({"backing": [images.path("base.raw")]}), &pattern(), "random");
}

/// An image whose L2 tables are copied before they are changed.
fn with_snapshot() -> Images {
    let images = with_base();
    images.qemu_img(&format!("convert -O qcow2 {CLUSTERS} DIR/base.raw DIR/a.qcow2"));
    images.qemu_img("snapshot -c s DIR/a.qcow2");
    images
}

fn snapshot() {
    survives(&with_snapshot(), json!({}), &pattern(), "random");
}

fn freed_with_snapshot() {
    survives(&with_snapshot(), json!({}), &pattern(), "reuse");
}

fn compressed() {
    let images = with_base();
    images.qemu_img(&format!("convert -c -O qcow2 {CLUSTERS} DIR/base.raw DIR/a.qcow2"));
    survives(&images, json!({}), &pattern(), "random");
}

fn syncs_are_few() {
    let syncs = |workload| {
        let images = Images::new();
        images.qemu_img(&format!("create -f qcow2 {CLUSTERS} DIR/a.qcow2 {}", DISK * SECTOR as u64));
        let events = traced(&images, json!({}), workload);
        events.iter().filter(|event| **event == Event::Sync).count()
    };
    let fill = syncs("fill");
    // The mark, the L1 entry, for each flush one before the L2 table and one after it, and the end.
    assert_eq!(fill, 3 + 2 * 128);
    assert_eq!(syncs("overwrite") - fill, 128, "in place, there is one for each flush");
}
