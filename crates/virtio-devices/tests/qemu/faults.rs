//! One failed system call: what a flush has reported as being on stable storage is there.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use vmm_virtio::Setting;
use vmm_virtio::testing::{Buf, Driver, Used, without_filters};
use vmm_virtio_devices::KINDS;

use crate::disk::*;
use crate::images::Images;
use crate::power::{AllowedContents, Step};
use crate::tools::{qemu_img, trial_with};

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name, test: fn()| trial_with(name, &["strace"], test);
    vec![
        trial("failed_sync_of_a_plain_image_loses_nothing_flushed", || {
            survives_each(plain, "fdatasync:error=EIO")
        }),
        trial("failed_write_of_a_plain_image_loses_nothing_flushed", || {
            survives_each(plain, "pwritev:error=ENOSPC");
            survives_each(plain, "pwrite64:error=ENOSPC");
        }),
        trial("failed_sync_of_an_image_with_a_snapshot_loses_nothing_flushed", || {
            survives_each(snapshot, "fdatasync:error=EIO");
        }),
        trial("failed_sync_of_an_image_with_bitmaps_leaves_it_marked", || {
            survives_each(bitmaps, "fdatasync:error=EIO");
        }),
        trial("failed_write_of_data_of_an_image_concerns_only_itself", data_recovers),
        trial("failed_flush_of_a_raw_disk_is_followed_by_failed_ones", raw_flush),
        trial("failed_write_through_write_of_a_raw_disk_is_followed_by_failed_ones", raw_write_through),
        trial("failed_write_through_write_without_room_concerns_only_itself", raw_without_room),
        trial("flush_that_fails_with_eagain_is_followed_by_failed_ones", raw_flush_eagain),
        trial("write_through_write_that_fails_with_eagain_is_followed_by_failed_ones", raw_write_eagain),
        trial("flush_that_a_signal_interrupts_is_done_again", raw_flush_interrupted),
        trial("flush_fails_with_the_write_through_write_that_was_in_flight_with_it", raw_together),
        trial("failed_flush_of_persistent_memory_is_followed_by_failed_ones", pmem_flush),
        trial("failed_sync_of_an_image_is_told_with_its_remedy", image_is_told),
    ]
}

/// Set in the environment of this program as a child: the disk's config, and where to write the results.
const CONFIG: &str = "FAULTS_CONFIG";
const RESULTS: &str = "FAULTS_RESULTS";

/// Size of the disk in sectors: 16 L2 tables with clusters of 512 bytes.
const DISK: u64 = 1024;
const SECTOR: usize = 512;

/// New L2 tables and clusters, clusters in place, and so many of them that the refcount table gets another block.
const STEPS: [Step; 12] = [
    Step::Write { sector: 0, count: 3, fill: 101 },
    Step::Flush,
    Step::Write { sector: 64, count: 2, fill: 102 },
    Step::Write { sector: 1, count: 1, fill: 103 },
    Step::Flush,
    Step::Write { sector: 100, count: 300, fill: 104 },
    Step::Flush,
    Step::Zero { sector: 120, count: 70 },
    Step::Write { sector: 130, count: 4, fill: 105 },
    Step::Flush,
    Step::Write { sector: 900, count: 1, fill: 106 },
    Step::Flush,
];

/// In a child: sends the steps, or two requests, to the disk, or flushes to the persistent memory, and writes their statuses and the log
/// lines.
pub(crate) fn run_child() -> Option<ExitCode> {
    let config: Value = serde_json::from_str(&std::env::var(CONFIG).ok()?).unwrap();
    // strace replaces the number of a call that is to fail by -1, which no filter permits.
    without_filters();
    let (statuses, told) = match (config.get("disk"), config.get("together")) {
        (Some(fields), _) => send_steps(fields.clone()),
        (_, Some(fields)) => send_together(fields.clone()),
        _ => flush_pmem(config),
    };
    std::fs::write(std::env::var(RESULTS).unwrap(), json!([statuses, told]).to_string()).unwrap();
    Some(ExitCode::SUCCESS)
}

fn send_steps(fields: Value) -> (Vec<u8>, Vec<String>) {
    let mut disk = start(fields);
    let statuses: Vec<u8> = STEPS.iter().map(|step| step.send(&mut disk)).collect();
    // The disk is readable to the end.
    assert_eq!(read(&mut disk, 0, 512).1, OK);
    // It tells of a request before it completes the next.
    let told = disk.control().take_notices().texts;
    (statuses, told)
}

/// A write and a flush, both in flight: their statuses.
fn send_together(fields: Value) -> (Vec<u8>, Vec<String>) {
    let mut disk = start(fields);
    let (write, flush) = (header(OUT, 0), header(FLUSH, 0));
    let mut queue = disk.queue(0);
    let heads = [
        queue.add(&[Buf::Read(&write), Buf::Read(&[1; SECTOR]), Buf::Write(1)]),
        queue.add(&[Buf::Read(&flush), Buf::Write(1)]),
    ];
    queue.kick();
    let used = [queue.wait_used(), queue.wait_used()];
    let of = |head| used.iter().find(|used: &&Used| used.head == head).unwrap();
    (heads.map(|head| status(of(head))).to_vec(), disk.control().take_notices().texts)
}

/// Two flushes, and one after the driver's reset: the first bytes of their responses.
fn flush_pmem(fields: Value) -> (Vec<u8>, Vec<String>) {
    let entry = KINDS.iter().find(|entry| entry.name == "pmem").unwrap();
    let setting = Setting { directory: Path::new("."), vcpus: 1, id: "pmem0", plan_only: false };
    let mut driver = Driver::new(entry.open(fields, &setting).unwrap(), entry.id);
    let flush =
        |driver: &mut Driver| driver.queue(0).request(&[Buf::Read(&[0; 4]), Buf::Write(4)]).written()[0];
    driver.init(0);
    let mut statuses = vec![flush(&mut driver), flush(&mut driver)];
    driver.init(0);
    statuses.push(flush(&mut driver));
    (statuses, driver.control().take_notices().texts)
}

/// What a child has seen.
struct Outcome {
    statuses: Vec<u8>,
    told: Vec<String>,
    /// Whether the system call was made, and so failed.
    is_injected: bool,
}

/// Sends the steps to the disk of these fields, whose file is `path`, while one system call on it fails.
fn with_fault(images: &Images, path: &Path, fields: &Value, fault: &str) -> Outcome {
    child_with_fault(images, path, &json!({"disk": fields}), fault)
}

fn child_with_fault(images: &Images, path: &Path, config: &Value, fault: &str) -> Outcome {
    let (trace, results) = (images.path("trace"), images.path("results"));
    let status = Command::new("strace")
        .args(["-f", "-q", "-e", &format!("inject={fault}"), "-o"])
        .arg(&trace)
        .arg("-P")
        .arg(path)
        .arg(std::env::current_exe().unwrap())
        .env(CONFIG, config.to_string())
        .env(RESULTS, &results)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let (statuses, told) = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    let is_injected = std::fs::read_to_string(trace).unwrap().contains("(INJECTED)");
    Outcome { statuses, told, is_injected }
}

fn plain(images: &Images) {
    images.qemu_img(&format!("create -f qcow2 -o cluster_size=512 DIR/a.qcow2 {}", DISK * SECTOR as u64));
}

/// Before the first change, the mark of the bitmaps is cleared.
fn bitmaps(images: &Images) {
    plain(images);
    images.qemu_img("bitmap --add DIR/a.qcow2 b");
}

fn snapshot(images: &Images) {
    std::fs::write(images.path("base.raw"), [7; DISK as usize * SECTOR]).unwrap();
    images.qemu_img("convert -O qcow2 -o cluster_size=512 DIR/base.raw DIR/a.qcow2");
    images.qemu_img("snapshot -c s DIR/a.qcow2");
}

fn fault_of(images: &Images, create: fn(&Images), fault: &str) -> (Outcome, Vec<u8>) {
    create(images);
    images.qemu_img("convert -O raw DIR/a.qcow2 DIR/before.raw");
    let (path, before) = (images.path("a.qcow2"), std::fs::read(images.path("before.raw")).unwrap());
    (with_fault(images, &path, &json!({"path": path, "format": "qcow2"}), fault), before)
}

/// Has each of the calls fail in turn, and checks the image after each.
fn survives_each(create: fn(&Images), call: &str) {
    let mut count = 0;
    for number in 1.. {
        let (images, context) = (Images::new(), format!("{call}, number {number}"));
        let (outcome, before) = fault_of(&images, create, &format!("{call}:when={number}"));
        if !outcome.is_injected {
            break;
        }
        count = number;
        assert_stays_failed(&outcome.statuses, call.starts_with("fdatasync"), &context);
        check(&images, &outcome, &before, &context);
    }
    assert!(count >= 2, "{call}: {count} calls");
}

/// After a failed flush, or any request whose sync has failed, all further flushes and writes fail.
fn assert_stays_failed(statuses: &[u8], is_sync: bool, context: &str) {
    let steps = STEPS.iter().zip(statuses);
    let is_last = |step: &Step| is_sync || matches!(step, Step::Flush);
    let failed = steps.skip_while(|(step, status)| !is_last(step) || **status == OK);
    assert!(failed.into_iter().all(|(_, status)| *status == IOERR), "{statuses:?}: {context}");
}

/// Repairs the image if it is marked dirty, and checks its contents and its snapshot.
fn check(images: &Images, outcome: &Outcome, before: &[u8], context: &str) {
    if std::fs::read(images.path("a.qcow2")).unwrap()[79] & 1 != 0 {
        // It fails if there was something to repair.
        qemu_img(&images.with_dir("check -r all DIR/a.qcow2"));
    } else {
        assert_eq!(outcome.statuses.last(), Some(&OK), "{context}");
    }
    let (is_clean, said) = qemu_img(&images.with_dir("check DIR/a.qcow2"));
    assert!(is_clean, "{said}: {context}");
    images.qemu_img("convert -O raw DIR/a.qcow2 DIR/after.raw");
    allowed(before, &outcome.statuses)
        .assert_holds(&std::fs::read(images.path("after.raw")).unwrap(), context);
    if images.path("base.raw").exists() {
        images.qemu_img("convert -l snapshot.name=s -O raw DIR/a.qcow2 DIR/snapshot.raw");
        assert_eq!(std::fs::read(images.path("snapshot.raw")).unwrap(), before, "{context}");
    }
}

/// What each sector may have: what it had at the last successful flush, or was written since then or by a failed
/// request.
fn allowed(before: &[u8], statuses: &[u8]) -> AllowedContents {
    // Pairs of a value, and whether it was written successfully.
    let mut sectors: Vec<Vec<(u8, bool)>> =
        before.chunks(SECTOR).map(|sector| vec![(sector[0], true)]).collect();
    for (step, status) in STEPS.iter().zip(statuses) {
        let (sector, count, fill) = match *step {
            Step::Write { sector, count, fill } => (sector, count, fill),
            Step::Zero { sector, count } => (sector, count.into(), 0),
            Step::Flush if *status == OK => {
                for values in &mut sectors {
                    let last = values.iter().rposition(|(_, is_written)| *is_written);
                    values.drain(..last.expect("the value before"));
                }
                continue;
            }
            Step::Flush => continue,
        };
        sectors[sector as usize..][..count as usize]
            .iter_mut()
            .for_each(|values| values.push((fill, *status == OK)));
    }
    let values = |values: Vec<(u8, bool)>| values.into_iter().map(|(value, _)| value).collect();
    AllowedContents(sectors.into_iter().map(values).collect())
}

/// On a full disk that has room again for the next request.
fn data_recovers() {
    // The first write is that of an L2 table, the second of its L1 entry, and the third of data.
    for number in [1, 3] {
        let images = Images::new();
        let (outcome, before) = fault_of(&images, plain, &format!("pwritev:error=ENOSPC:when={number}"));
        assert!(outcome.is_injected);
        let mut expected = [OK; STEPS.len()];
        expected[0] = IOERR;
        assert_eq!(outcome.statuses, expected, "{number}");
        check(&images, &outcome, &before, "data");
        let told = "a write at byte 0 of the disk failed: No space left on device (os error 28)";
        assert_eq!(outcome.told, [told]);
    }
}

const RAW_NOTICE: &str = "what the guest has written since its last flush may be lost: flushes and write-through writes \
                          fail until the monitor ends; then check the disk's file systems (fsck)";

/// A raw disk whose requests are executed by four threads. A call's number is counted for each of them.
fn raw(cache: &str, fault: &str) -> Outcome {
    let images = Images::new();
    let path = images.path("disk");
    std::fs::write(&path, [0; DISK as usize * SECTOR]).unwrap();
    let fields = json!({"path": path, "format": "raw", "io": "threads", "cache": cache});
    with_fault(&images, &path, &fields, fault)
}

fn raw_flush() {
    let Outcome { statuses, told, is_injected } = raw("writeback", "fdatasync:error=EIO:when=1");
    assert!(is_injected);
    let expected = STEPS.map(|step| if matches!(step, Step::Flush) { IOERR } else { OK });
    assert_eq!(statuses, expected);
    assert_eq!(told, ["a flush failed: Input/output error (os error 5)", RAW_NOTICE]);
}

fn raw_flush_eagain() {
    let Outcome { statuses, is_injected, .. } = raw("writeback", "fdatasync:error=EAGAIN:when=1");
    assert!(is_injected);
    assert_eq!(statuses, STEPS.map(|step| if matches!(step, Step::Flush) { IOERR } else { OK }));
}

/// Only the write: its repetition would succeed.
fn raw_write_eagain() {
    let Outcome { statuses, is_injected, .. } = raw("writethrough", "pwritev2:error=EAGAIN:when=1");
    assert!(is_injected);
    assert_eq!(statuses, [IOERR; STEPS.len()]);
}

fn raw_flush_interrupted() {
    let Outcome { statuses, told, is_injected } = raw("writeback", "fdatasync:error=EINTR:when=1");
    assert!(is_injected);
    assert_eq!((statuses, told), (vec![OK; STEPS.len()], Vec::new()));
}

/// The write's error may be about what was flushed. It takes 300 ms, and the flush nearly nothing.
fn raw_together() {
    let images = Images::new();
    let path = images.path("disk");
    std::fs::write(&path, [0; DISK as usize * SECTOR]).unwrap();
    let fields = json!({"path": path, "format": "raw", "io": "threads", "cache": "writethrough"});
    let fault = "pwritev2:error=EIO:delay_exit=300000";
    let outcome = child_with_fault(&images, &path, &json!({"together": fields}), fault);
    assert!(outcome.is_injected);
    assert_eq!(outcome.statuses, [IOERR; 2]);
}

fn raw_write_through() {
    let Outcome { statuses, told, is_injected } = raw("writethrough", "pwritev2:error=EIO:when=1");
    assert!(is_injected);
    assert_eq!(statuses, [IOERR; STEPS.len()]);
    assert_eq!(told, ["a write at byte 0 of the disk failed: Input/output error (os error 5)", RAW_NOTICE]);
}

fn raw_without_room() {
    let Outcome { statuses, told, is_injected } = raw("writethrough", "pwritev2:error=ENOSPC");
    assert!(is_injected);
    let expected = STEPS.map(|step| if matches!(step, Step::Write { .. }) { IOERR } else { OK });
    assert_eq!(statuses, expected);
    assert_eq!(told, ["a write at byte 0 of the disk failed: No space left on device (os error 28)"]);
}

fn pmem_flush() {
    let images = Images::new();
    let path = images.path("memory");
    std::fs::write(&path, [0; 2 << 20]).unwrap();
    let Outcome { statuses, told, is_injected } =
        child_with_fault(&images, &path, &json!({"path": path}), "fdatasync:error=EIO:when=1");
    assert!(is_injected);
    assert_eq!(statuses, [0xff; 3]);
    let notice = "what the guest has written since its last flush may be lost: flushes fail until the monitor ends; then check \
                  its file systems (fsck)";
    assert_eq!(told, ["a flush failed: Input/output error (os error 5)", notice]);
}

fn image_is_told() {
    let images = Images::new();
    // After the mark and the L1 entry's.
    let (outcome, _) = fault_of(&images, plain, "fdatasync:error=EIO:when=3");
    let told: Vec<String> =
        outcome.told.iter().map(|text| text.replace(images.path("").to_str().unwrap(), "DIR/")).collect();
    assert_eq!(
        told,
        [
            "a flush failed: Input/output error (os error 5)",
            "what the guest has written since its last flush may be lost: flushes and writes fail until the monitor ends; \
             then repair the image, qemu-img check -r all DIR/a.qcow2, and check its file systems (fsck)"
        ]
    );
}
