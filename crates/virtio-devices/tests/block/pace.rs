//! Rate limits: requests beyond them are delayed, not lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmm_virtio::testing::{Buf, Driver};

use crate::disk::*;

/// The duration of this many concurrent reads of a sector.
fn time_of(count: usize, limits: Value) -> Duration {
    let file = image();
    let mut driver = start(fields(&file, json!({"limits": limits})));
    let header = header(IN, 0);
    let start = Instant::now();
    let mut queue = driver.queue(0);
    for _ in 0..count {
        queue.add(&[Buf::Read(&header), Buf::Write(513)]);
    }
    queue.kick();
    for _ in 0..count {
        assert_eq!(status(&queue.poll_used()), OK);
    }
    start.elapsed()
}

/// A burst of 10, then 100 per second: 20 more take 200 ms, however fast the host is.
#[test]
fn operations_beyond_the_burst_wait() {
    let limits = json!({"operations_per_second": 100, "operations_burst": 10});
    assert!(time_of(30, limits) >= Duration::from_millis(200));
}

/// A burst of 10 sectors, then 100 per second.
#[test]
fn bytes_beyond_the_burst_wait() {
    let limits = json!({"bytes_per_second": "51200", "bytes_burst": "5K"});
    assert!(time_of(30, limits) >= Duration::from_millis(200));
}

#[test]
fn burst_waits_for_nothing() {
    // A second would mean one request too many was delayed, an hour all of them.
    let limits = json!({"operations_per_second": 1, "operations_burst": 30});
    assert!(time_of(30, limits) < Duration::from_secs(10));
}

/// Sends so many reads of a sector, and waits for the first. With a byte a second the next one must wait 512 seconds.
fn send_and_take_the_first(driver: &mut Driver, count: usize) {
    let header = header(IN, 0);
    let mut queue = driver.queue(0);
    for _ in 0..count {
        queue.add(&[Buf::Read(&header), Buf::Write(513)]);
    }
    queue.kick();
    assert_eq!(status(&queue.poll_used()), OK);
}

/// A request that waits for tokens isn't in flight: the driver still owns it, and a reset doesn't wait for
/// it.
#[test]
fn reset_does_not_wait_for_tokens() {
    let file = image();
    let mut driver = start(fields(&file, json!({"limits": {"bytes_per_second": "1"}})));
    send_and_take_the_first(&mut driver, 4);
    let start = Instant::now();
    driver.reset();
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// Requests that wait for the old limits are retried with the new ones.
#[test]
fn update_of_the_limits_holds_for_what_waits() {
    let file = image();
    let mut driver = start(fields(&file, json!({"limits": {"bytes_per_second": "1"}})));
    send_and_take_the_first(&mut driver, 4);
    driver.update(json!({"limits": {}})).unwrap();
    let mut queue = driver.queue(0);
    for _ in 0..3 {
        assert_eq!(status(&queue.poll_used()), OK);
    }
    driver.update(json!({"limits": {"bytes_per_second": "1"}})).unwrap();
    send_and_take_the_first(&mut driver, 2);
    driver.suspend();
    assert_eq!(driver.queue(0).try_used(), None, "the new limit has let the second go");
}

#[test]
fn update_of_a_limit_that_lets_nothing_through_is_refused() {
    let file = image();
    let driver = start(fields(&file, json!({})));
    let error = driver.update(json!({"size": "1M", "limits": {"bytes_per_second": "0"}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        ".limits.bytes_per_second: 0 lets nothing through, leave it out for no limit"
    );
    assert_eq!(file.as_file().metadata().unwrap().len(), 64 << 10, "nothing is changed then");
}
