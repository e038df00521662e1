//! A balloon driven by well-behaved and malicious drivers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use vmm_virtio::testing::{Buf, DEADLINE, Driver, features};
use vmm_virtio::vm_memory::{Bytes, GuestAddress};
use vmm_virtio::{DeviceBlame, Kind, Setting};
use vmm_virtio_devices::Balloon;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;

const STATS_VQ: u64 = 1 << 1;
const PAGE_POISON: u64 = 1 << 4;
const PAGE_REPORTING: u64 = 1 << 5;

/// Otherwise unused memory, 2 MiB: page numbers 512 to 1023.
const PAGES: u64 = 2 << 20;
const FIRST: u32 = 512;
const MIB: u64 = 1 << 20;

fn open(fields: Value) -> Balloon {
    let config = serde_json::from_value(fields).unwrap();
    Balloon::open(config, &Setting { directory: Path::new("."), vcpus: 1, id: "balloon", plan_only: false })
        .unwrap()
}

fn refusal(size: &str) -> String {
    let config = serde_json::from_value(json!({"size": size})).unwrap();
    let setting = Setting { directory: Path::new("."), vcpus: 1, id: "balloon", plan_only: false };
    let error = Balloon::open(config, &setting).unwrap_err();
    assert_eq!(error.blame, DeviceBlame::Config);
    error.to_string()
}

/// A driver that has negotiated `features`.
fn driver(fields: Value, features: u64) -> Driver {
    let mut driver = Driver::new(Box::new(open(fields)), 5);
    driver.init(features);
    driver
}

/// A number in the balloon's report.
fn reported(driver: &Driver, name: &str) -> u64 {
    driver.report()[name].as_u64().unwrap()
}

/// Encodes page numbers.
fn numbers(pages: impl IntoIterator<Item = u32>) -> Vec<u8> {
    pages.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Fills whole pages of memory with sevens.
fn fill(driver: &Driver, gpa: u64, len: u64) {
    driver.ram().memory().write_slice(&vec![7; len as usize], GuestAddress(gpa)).unwrap();
}

fn byte_at(driver: &Driver, gpa: u64) -> u8 {
    driver.ram().memory().read_obj(GuestAddress(gpa)).unwrap()
}

/// Bytes of guest memory backed by host memory (Linux, Documentation/admin-guide/mm/pagemap.rst: bit 63 is
/// "page present", bit 62 "page swapped").
fn resident(driver: &Driver, gpa: u64, len: u64) -> u64 {
    let mut regions = driver.ram().regions();
    let region = regions.find(|region| (region.gpa..region.gpa + region.len).contains(&gpa)).unwrap();
    let mut entries = vec![0; (len / 4096 * 8) as usize];
    let first = (region.hva + gpa - region.gpa) / 4096;
    File::open("/proc/self/pagemap").unwrap().read_exact_at(&mut entries, first * 8).unwrap();
    entries.chunks(8).filter(|entry| entry[7] >> 6 != 0).count() as u64 * 4096
}

fn counted(driver: &Driver, name: &str) -> u64 {
    let all = driver.control().counters().each();
    all.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn config_without_fields_is_a_balloon_without_a_target() {
    let driver = driver(json!({}), 0);
    assert_eq!(driver.config(0, 16), [0; 16]);
    assert_eq!((reported(&driver, "target_bytes"), reported(&driver, "actual_bytes")), (0, 0));
}

#[test]
fn config_size_is_the_target_in_pages() {
    let driver = driver(json!({"size": "64M"}), 0);
    assert_eq!(driver.config(0, 4), 16384_u32.to_le_bytes());
    assert_eq!(reported(&driver, "target_bytes"), 64 * MIB);
}

#[test]
fn config_chooses_what_is_offered() {
    let offered = |fields| driver(fields, 0).offered() & 0xff;
    assert_eq!(offered(json!({})), 0b11_0111);
    assert_eq!(offered(json!({"deflate_on_oom": false})), 0b11_0011);
    assert_eq!(offered(json!({"free_page_reporting": false})), 0b00_0111);
}

#[test]
fn config_size_of_half_a_page_is_refused() {
    let message = ".size: 6K isn't a multiple of the page size, 4K: try 4K";
    assert_eq!(refusal("6K"), message);
}

#[test]
fn config_size_beyond_32_bits_of_pages_is_refused() {
    let message = ".size: 16T exceeds the maximum size of a balloon: choose less than 16T";
    assert_eq!(refusal("16T"), message);
}

#[test]
fn actual_is_what_the_driver_writes() {
    let driver = driver(json!({"size": "64M"}), 0);
    driver.write_config(4, &256_u32.to_le_bytes());
    assert_eq!(reported(&driver, "actual_bytes"), MIB);
    // The driver can't write the target.
    driver.write_config(0, &1_u32.to_le_bytes());
    assert_eq!(reported(&driver, "target_bytes"), 64 * MIB);
}

#[test]
fn inflated_pages_leave_the_host_and_read_as_zeros() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 2 * MIB);
    assert_eq!(resident(&driver, PAGES, 2 * MIB), 2 * MIB);
    // Two chains like Linux's, of the first 256 pages and of all others except the last.
    driver.queue(INFLATE).request(&[Buf::Read(&numbers(FIRST..FIRST + 256))]);
    let used = driver.queue(INFLATE).request(&[Buf::Read(&numbers(FIRST + 256..FIRST + 511))]);
    assert_eq!(used.len, 0);
    assert_eq!(resident(&driver, PAGES, 2 * MIB), 4096);
    assert_eq!(byte_at(&driver, PAGES + 2 * MIB - 4096), 7);
    assert_eq!((byte_at(&driver, PAGES), byte_at(&driver, PAGES + 2 * MIB - 4097)), (0, 0));
    assert_eq!((counted(&driver, "requests"), counted(&driver, "bytes_out")), (2, 511 * 4096));
    assert_eq!((counted(&driver, "errors"), counted(&driver, "bytes_in")), (0, 0));
}

#[test]
fn inflated_pages_in_any_order_and_twice_are_those_pages() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 2 * MIB);
    let pages = [FIRST + 9, FIRST + 1, FIRST + 8, FIRST + 9, FIRST + 3, FIRST + 4];
    driver.queue(INFLATE).request(&[Buf::Read(&numbers(pages))]);
    let gone: Vec<_> = (0..12).filter(|page| byte_at(&driver, PAGES + page * 4096) == 0).collect();
    assert_eq!(gone, [1, 3, 4, 8, 9]);
    assert_eq!((counted(&driver, "bytes_out"), counted(&driver, "errors")), (5 * 4096, 0));
}

#[test]
fn inflated_pages_across_regions_leave_both() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, 32 * MIB - 4096, 8192);
    // The last page of the region below 32 MiB, and the first one of the region above.
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([8191, 8192]))]);
    assert_eq!((byte_at(&driver, 32 * MIB - 1), byte_at(&driver, 32 * MIB)), (0, 0));
    assert_eq!(counted(&driver, "bytes_out"), 8192);
}

#[test]
fn inflated_pages_that_are_no_memory_are_passed_over() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 4096);
    // In the gap below 4 GiB, above all memory, and the largest number.
    let pages = [0x4000, FIRST, 0x10_0100, u32::MAX];
    driver.queue(INFLATE).request(&[Buf::Read(&numbers(pages))]);
    assert_eq!(byte_at(&driver, PAGES), 0);
    assert_eq!((counted(&driver, "bytes_out"), counted(&driver, "errors")), (4096, 1));
    assert!(!driver.needs_reset());
}

#[test]
fn inflated_chain_of_odd_length_is_whole_numbers_only() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 8192);
    let mut bytes = numbers([FIRST]);
    bytes.extend(&numbers([FIRST + 1])[..3]);
    driver.queue(INFLATE).request(&[Buf::Read(&bytes)]);
    driver.queue(INFLATE).request(&[Buf::Read(&[1])]);
    assert_eq!((byte_at(&driver, PAGES), byte_at(&driver, PAGES + 4096)), (0, 7));
    assert_eq!((counted(&driver, "requests"), counted(&driver, "errors")), (2, 2));
}

#[test]
fn inflated_chain_of_a_million_numbers_ends_at_its_bound() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 8192);
    let mut pages = vec![FIRST; 1_000_000];
    // The first one beyond the limit.
    pages[16384] = FIRST + 1;
    driver.queue(INFLATE).request(&[Buf::Read(&numbers(pages))]);
    assert_eq!((byte_at(&driver, PAGES), byte_at(&driver, PAGES + 4096)), (0, 7));
    assert_eq!(counted(&driver, "errors"), 1);
    // It continues to work.
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([FIRST + 1]))]);
    assert_eq!(byte_at(&driver, PAGES + 4096), 0);
}

/// Sixteen chains with the maximum number of ranges. The thread handles other events between them.
#[test]
fn inflated_chains_without_end_let_a_stop_in_between() {
    let mut driver = driver(json!({}), 0);
    // Every other page from 40 MiB on, so that no two of those sorted together are neighbours.
    let bytes = numbers((0..16384).map(|n| 10240 + 2 * (n % 1024)));
    let mut queue = driver.queue(INFLATE);
    let gpa = queue.buffer(bytes.len() as u32);
    queue.write_bytes(gpa, &bytes);
    let heads: Vec<_> = (0..16).map(|_| queue.add(&[Buf::ReadAt(gpa, bytes.len() as u32)])).collect();
    queue.kick();
    driver.suspend();
    driver.resume();
    let mut queue = driver.queue(INFLATE);
    let used: Vec<_> = heads.iter().map(|_| queue.wait_used().head).collect();
    assert_eq!(used, heads);
    assert_eq!((counted(&driver, "requests"), counted(&driver, "errors")), (16, 0));
}

#[test]
fn deflated_pages_are_counted_and_can_be_used() {
    let mut driver = driver(json!({}), 0);
    fill(&driver, PAGES, 4096);
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([FIRST]))]);
    driver.queue(DEFLATE).request(&[Buf::Read(&numbers([FIRST]))]);
    fill(&driver, PAGES, 4096);
    assert_eq!(byte_at(&driver, PAGES), 7);
    assert_eq!((counted(&driver, "bytes_in"), counted(&driver, "bytes_out")), (4096, 4096));
}

/// Reports `ranges` through `queue` to a balloon with `features`, and returns how much of the memory at
/// [`PAGES`] the guest still has.
fn kept_of_reported(features: u64, queue: usize) -> u64 {
    let mut driver = driver(json!({}), features);
    fill(&driver, PAGES, 2 * MIB);
    let used =
        driver.queue(queue).request(&[Buf::WriteAt(PAGES, MIB as u32), Buf::WriteAt(PAGES + MIB, 0x8_0000)]);
    assert_eq!((used.len, counted(&driver, "errors")), (0, 0));
    resident(&driver, PAGES, 2 * MIB)
}

/// Linux numbers its queues without gaps, so without free page hints, reports come through queue 3, or
/// through queue 2 without statistics. By the specification they come through queue 4.
#[test]
fn reported_ranges_leave_the_host_by_each_number_of_the_queue() {
    assert_eq!(kept_of_reported(PAGE_REPORTING | STATS_VQ, 3), MIB / 2);
    assert_eq!(kept_of_reported(PAGE_REPORTING | STATS_VQ, 4), MIB / 2);
    assert_eq!(kept_of_reported(PAGE_REPORTING, 2), MIB / 2);
    assert_eq!(kept_of_reported(PAGE_REPORTING | features::EVENT_IDX, 4), MIB / 2);
}

#[test]
fn reported_ranges_stay_where_reports_were_not_taken() {
    assert_eq!(kept_of_reported(STATS_VQ, 3), 2 * MIB);
}

#[test]
fn reported_ranges_of_a_guest_that_poisons_them_stay() {
    let mut driver = driver(json!({}), PAGE_REPORTING | PAGE_POISON);
    fill(&driver, PAGES, 2 * MIB);
    driver.write_config(12, &0xaaaa_aaaa_u32.to_le_bytes());
    driver.queue(4).request(&[Buf::WriteAt(PAGES, MIB as u32)]);
    assert_eq!(resident(&driver, PAGES, 2 * MIB), 2 * MIB);
    // Zeros are what it expects.
    driver.write_config(12, &[0; 4]);
    driver.queue(4).request(&[Buf::WriteAt(PAGES, MIB as u32)]);
    assert_eq!(resident(&driver, PAGES, 2 * MIB), MIB);
}

#[test]
fn reported_range_across_regions_leaves_both() {
    let mut driver = driver(json!({}), PAGE_REPORTING | STATS_VQ);
    fill(&driver, 30 * MIB, 4 * MIB);
    driver.queue(3).request(&[Buf::WriteAt(31 * MIB, 2 * MIB as u32)]);
    assert_eq!(resident(&driver, 30 * MIB, 2 * MIB) + resident(&driver, 32 * MIB, 2 * MIB), 2 * MIB);
    assert_eq!(counted(&driver, "bytes_out"), 2 * MIB);
}

#[test]
fn reported_range_of_part_of_a_page_stays() {
    let mut driver = driver(json!({}), PAGE_REPORTING | STATS_VQ);
    fill(&driver, PAGES, 8192);
    driver.queue(3).request(&[Buf::WriteAt(PAGES + 1, 4096), Buf::WriteAt(PAGES + 4096, 4095)]);
    assert_eq!(byte_at(&driver, PAGES + 4096), 7);
    driver.queue(3).request(&[Buf::WriteAt(PAGES, 2048)]);
    assert_eq!(
        (byte_at(&driver, PAGES), counted(&driver, "errors"), counted(&driver, "bytes_out")),
        (7, 2, 0)
    );
}

/// Encodes a statistic.
fn stat(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// Waits for this number of reports of statistics.
fn wait_for_reports(driver: &Driver, count: u64) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let report = driver.report();
        if report["statistics_reports"] == count {
            return report["statistics"].clone();
        }
        assert!(Instant::now() < until, "{report:?}");
        std::thread::yield_now();
    }
}

#[test]
fn stats_are_kept_until_they_are_asked_for() {
    let mut driver = driver(json!({}), STATS_VQ);
    // Free memory, an unknown tag, and half a statistic.
    let bytes = [stat(4, 1234), stat(999, 1), stat(5, 1)[..9].to_vec()].concat();
    let mut queue = driver.queue(STATS);
    let first = queue.add(&[Buf::Read(&bytes)]);
    queue.kick();
    // After the chain, because the kick is handled first.
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([0]))]);
    assert_eq!(driver.queue(STATS).try_used(), None);
    let report = driver.report();
    assert_eq!(report["statistics_reports"], 1);
    assert_eq!(report["statistics"], json!({"free_memory": 1234}));
    assert_eq!(driver.queue(STATS).wait_used().head, first);
    driver.queue(STATS).add(&[Buf::Read(&stat(4, 99))]);
    driver.queue(STATS).kick();
    assert_eq!(wait_for_reports(&driver, 2), json!({"free_memory": 99}));
}

#[test]
fn stats_in_more_than_one_chain_come_back_but_one() {
    let mut driver = driver(json!({}), STATS_VQ);
    let mut queue = driver.queue(STATS);
    queue.add(&[Buf::Read(&stat(4, 1))]);
    let second = queue.add(&[Buf::Read(&stat(4, 2))]);
    queue.kick();
    assert_eq!(queue.wait_used().head, second);
    assert_eq!(wait_for_reports(&driver, 2), json!({"free_memory": 2}));
}

#[test]
fn stats_come_back_when_the_device_stops() {
    let mut driver = driver(json!({}), STATS_VQ);
    let head = driver.queue(STATS).add(&[Buf::Read(&stat(4, 1))]);
    driver.queue(STATS).kick();
    // After the chain, because the kick is handled first.
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([0]))]);
    driver.suspend();
    driver.resume();
    assert_eq!(driver.queue(STATS).wait_used().head, head);
}

#[test]
fn stats_of_a_driver_before_its_reset_are_not_given_back_after_it() {
    let mut driver = driver(json!({}), STATS_VQ);
    driver.queue(STATS).add(&[Buf::Read(&stat(4, 1))]);
    driver.queue(STATS).kick();
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([0]))]);
    driver.init(STATS_VQ);
    driver.report();
    driver.queue(INFLATE).request(&[Buf::Read(&numbers([0]))]);
    driver.suspend();
    assert_eq!(driver.queue(STATS).used_index(), 0);
}

#[test]
fn update_of_the_size_is_told() {
    let mut driver = driver(json!({}), 0);
    driver.update(json!({"size": "8M"})).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), 2048_u32.to_le_bytes());
    assert_eq!(reported(&driver, "target_bytes"), 8 * MIB);
    assert!(!driver.needs_reset());
}

#[test]
fn update_before_there_was_a_driver_is_told_at_its_start() {
    let mut driver = Driver::new(Box::new(open(json!({"size": "1M"}))), 5);
    driver.update(json!({"size": "2M"})).unwrap();
    driver.init(0);
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), 512_u32.to_le_bytes());
}

#[test]
fn update_of_a_suspended_balloon_is_told_when_it_goes_on() {
    let mut driver = driver(json!({}), 0);
    driver.suspend();
    driver.update(json!({"size": "2M"})).unwrap();
    driver.resume();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 4), 512_u32.to_le_bytes());
}

#[test]
fn update_that_is_wrong_names_the_field_and_changes_nothing() {
    let driver = driver(json!({"size": "1M"}), 0);
    let refusal = |fields| driver.update(fields).unwrap_err().to_string();
    assert_eq!(refusal(json!({"size": "6K"})), ".size: 6K isn't a multiple of the page size, 4K: try 4K");
    assert_eq!(
        refusal(json!({"size": "2M", "deflate_on_oom": true})),
        ".deflate_on_oom: unknown field, expected \"size\""
    );
    assert_eq!(reported(&driver, "target_bytes"), MIB);
}

#[test]
fn restored_balloon_has_its_target_its_size_and_the_statistics() {
    let mut driver = driver(json!({"size": "1M"}), STATS_VQ);
    driver.update(json!({"size": "3M"})).unwrap();
    driver.write_config(4, &256_u32.to_le_bytes());
    // VIRTIO_BALLOON_S_MEMFREE.
    driver.queue(STATS).add(&[Buf::Read(&[&[4, 0][..], &77_u64.to_le_bytes()].concat())]);
    driver.queue(STATS).kick();
    let until = Instant::now() + DEADLINE;
    while reported(&driver, "statistics_reports") == 0 {
        assert!(Instant::now() < until, "no statistics");
    }
    let driver = driver.move_to(Box::new(open(json!({"size": "1M"}))));
    assert_eq!((reported(&driver, "target_bytes"), reported(&driver, "actual_bytes")), (3 * MIB, MIB));
    assert_eq!(driver.report()["statistics"]["free_memory"], 77);
}
