//! Changes to a card at run time.

use serde_json::json;
use vmm_virtio::testing::Buf;

use super::{RECEIVEQ, TRANSMITQ, add, counted, framed, fresh_with, running, send, take, wait};

const F_STATUS: u64 = 1 << 16;
/// Offset of `status` in the configuration, whose bit 0 is VIRTIO_NET_S_LINK_UP.
const STATUS: u64 = 6;

#[test]
fn link_set_down_is_told_and_drops_frames_of_both_directions_until_it_is_up() {
    let (mut driver, peer) = running(F_STATUS);
    driver.update(json!({"link": "down"})).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(STATUS, 1), [0]);
    assert_eq!(driver.report()["link"], "down");
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(b"a frame that goes nowhere"))]);
    (0..2).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(1526)]));
    send(&peer, &counted(60));
    driver.queue(RECEIVEQ).kick();
    // One is dropped at the kick, one when its descriptor is ready.
    send(&peer, &counted(61));
    let refused = || driver.control().counters().refused.get();
    let until = std::time::Instant::now() + vmm_virtio::testing::DEADLINE;
    while refused() < 3 {
        assert!(std::time::Instant::now() < until, "{} frames are refused", refused());
        std::thread::yield_now();
    }
    driver.update(json!({"link": "up"})).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(STATUS, 1), [1]);
    send(&peer, &counted(62));
    assert_eq!(wait(&mut driver).written()[12..], counted(62));
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(b"a frame that arrives"))]);
    assert_eq!(take(&peer), framed(b"a frame that arrives"));
}

#[test]
fn link_set_down_before_the_driver_came_or_while_it_was_suspended_is_told_at_its_start() {
    let (mut driver, _peer) = fresh_with(json!({}));
    driver.update(json!({"link": "down"})).unwrap();
    driver.init(F_STATUS);
    driver.wait_config_change();
    assert_eq!(driver.config(STATUS, 1), [0]);
    driver.suspend();
    driver.update(json!({"link": "up"})).unwrap();
    driver.resume();
    driver.wait_config_change();
    assert_eq!(driver.config(STATUS, 1), [1]);
}

#[test]
fn limits_replaced_hold_for_frames_that_wait() {
    let (mut driver, peer) = fresh_with(json!({"limits": {"bytes_per_second": "1"}}));
    driver.init(0);
    let frame = framed(&counted(60));
    let mut queue = driver.queue(TRANSMITQ);
    (0..2).for_each(|_| _ = queue.add(&[Buf::Read(&frame)]));
    queue.kick();
    queue.wait_used();
    assert_eq!(take(&peer), frame);
    // The second one would have to wait a minute.
    assert_eq!(queue.try_used(), None);
    driver.update(json!({"limits": {}})).unwrap();
    driver.queue(TRANSMITQ).wait_used();
    assert_eq!(take(&peer), frame);
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(60));
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
}

#[test]
fn update_that_is_wrong_names_the_field_and_changes_nothing() {
    let (driver, _peer) = running(F_STATUS);
    let refusal = |fields| driver.update(fields).unwrap_err().to_string();
    assert_eq!(
        refusal(json!({"link": "off"})),
        ".link: unknown value \"off\", expected one of \"up\", \"down\""
    );
    assert_eq!(
        refusal(json!({"link": "down", "limits": {"bytes_burst": "1K"}})),
        ".limits.bytes_burst: 1K limits nothing without \"bytes_per_second\", add that"
    );
    assert_eq!(driver.report()["link"], "up");
    assert_eq!(driver.config(STATUS, 1), [1]);
}
