//! The device's identity and features.

use super::Subject;
use crate::testing::{Register, features, status};

pub fn features_offered_are_those_expected(subject: &Subject) {
    let driver = subject.driver();
    let rings = features::VERSION_1 | features::INDIRECT | features::EVENT_IDX;
    assert_eq!(driver.offered(), subject.expect.features | rings);
    driver.write(Register::DeviceFeaturesSel, 2);
    assert_eq!(driver.read(Register::DeviceFeatures), 0);
}

pub fn features_not_offered_are_refused(subject: &Subject) {
    let mut driver = subject.driver();
    let offered = driver.offered();
    for feature in (0..64).map(|bit| 1_u64 << bit).filter(|feature| offered & feature == 0) {
        assert!(!driver.negotiate(feature), "feature {feature:#x} was accepted but not offered");
    }
    subject.recover(&mut driver);
}

pub fn features_without_version_1_are_refused(subject: &Subject) {
    let driver = subject.driver();
    driver.add_status(status::ACKNOWLEDGE);
    driver.add_status(status::DRIVER);
    driver.write_features(driver.offered() & !features::VERSION_1);
    driver.add_status(status::FEATURES_OK);
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER);
}

pub fn features_refused_can_be_chosen_anew(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(!driver.negotiate(1 << 63));
    driver.write_features(features::VERSION_1);
    driver.add_status(status::FEATURES_OK);
    assert_eq!(driver.status() & status::FEATURES_OK, status::FEATURES_OK);
}

pub fn queues_are_those_expected(subject: &Subject) {
    let driver = subject.driver();
    assert_eq!(driver.queue_maxima().collect::<Vec<_>>(), subject.expect.queues);
    assert_eq!(driver.control().kicks().len(), subject.expect.queues.len());
}

pub fn configuration_can_be_read_at_every_offset(subject: &Subject) {
    let driver = subject.driver();
    let all = driver.config(0, driver.config_room() as usize);
    for width in [1, 2, 4, 8] {
        for offset in 0..=all.len() - width {
            let mut bytes = [0xff; 8];
            driver.read_config(offset as u64, &mut bytes[..width]);
            assert_eq!(bytes[..width], all[offset..offset + width], "{width} bytes at {offset:#x}");
        }
    }
}
