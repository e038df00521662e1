//! The state machine of the device status, exhaustively.

use super::Scripted;
use crate::testing::{Driver, Register, features, status};

const STEPS: [u8; 4] = [status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK, status::DRIVER_OK];

/// A driver after this many steps of its initialisation.
fn at_step(attach: fn(Scripted) -> Driver, steps: usize) -> Driver {
    let driver = attach(Scripted::new(|_| Ok(())));
    for bit in &STEPS[..steps] {
        driver.write_features(features::VERSION_1);
        driver.add_status(*bit);
    }
    assert_eq!(driver.status(), STEPS[..steps].iter().sum::<u8>());
    driver
}

fn every_status_keeps_the_order(steps: usize) {
    every_status_keeps_the_order_with(Scripted::driver, steps);
    every_status_keeps_the_order_with(Scripted::function, steps);
}

/// Writes every value except 0 (reset) to a driver at that step.
fn every_status_keeps_the_order_with(attach: fn(Scripted) -> Driver, steps: usize) {
    for value in 1..=255_u8 {
        let driver = at_step(attach, steps);
        let before = driver.status();
        driver.write(Register::Status, value.into());
        let after = driver.status();
        assert_eq!(after & before, before, "{value:#x}: no bit is cleared");
        assert_eq!(after & !before & !value, 0, "{value:#x}: no bit is set that wasn't written");
        assert_eq!(after & (status::NEEDS_RESET | 0x30), 0, "{value:#x}: not a driver's bits");
        for pair in STEPS.windows(2) {
            assert!(after & pair[1] == 0 || after & pair[0] != 0, "{value:#x}: {after:#x} is out of order");
        }
    }
}

#[test]
fn status_of_a_fresh_device_keeps_the_order() {
    every_status_keeps_the_order(0);
}

#[test]
fn status_with_acknowledge_keeps_the_order() {
    every_status_keeps_the_order(1);
}

#[test]
fn status_with_driver_keeps_the_order() {
    every_status_keeps_the_order(2);
}

#[test]
fn status_with_features_ok_keeps_the_order() {
    every_status_keeps_the_order(3);
}

#[test]
fn status_of_a_running_device_keeps_the_order() {
    every_status_keeps_the_order(4);
}

#[test]
fn features_that_could_be_accepted_are_not_before_the_driver_says_that_it_has_chosen() {
    let driver = at_step(Scripted::driver, 2);
    driver.write_features(features::VERSION_1);
    driver.write(Register::Status, driver.status().into());
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER);
}

#[test]
fn notification_of_a_queue_that_is_not_there_reaches_none() {
    let driver = Scripted::new(|_| Ok(())).driver();
    // Their low bits are those of queue 0.
    for index in [0x100, 0x1_0000, 0x8000_0000] {
        driver.write(Register::QueueNotify, index);
    }
    // A device that was never started doesn't read its notifications.
    let kicked = driver.control().kicks()[0].read();
    assert_eq!(kicked.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
}
