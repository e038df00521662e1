//! The log: nothing unless asked for, on standard error or in a file.

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::common::{ENDED, boot};

/// A line of the log of every run that says what happens.
const LINE: &str = "INFO first KVM_RUN";

pub(crate) fn tests() -> Vec<Trial> {
    trials![log_is_empty_unless_asked_for, log_verbose_goes_to_stderr, log_file_has_it_instead_of_stderr]
}

fn log_is_empty_unless_asked_for() {
    let mut monitor = boot("flood-1000").start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn log_verbose_goes_to_stderr() {
    let mut monitor = boot("flood-1000").args(["-v"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert!(monitor.stderr().contains(LINE), "{}", monitor.stderr());
    assert!(!monitor.stderr().contains("DEBUG"), "{}", monitor.stderr());
}

fn log_file_has_it_instead_of_stderr() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vmm.log");
    std::fs::write(&path, "earlier\n").unwrap();
    let mut monitor =
        boot("flood-1000").args(["-v".as_ref(), "--log-file".as_ref(), path.as_os_str()]).start();
    monitor.expect_code(ENDED, DEADLINE);
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.starts_with("earlier\n") && log.contains(LINE), "{log}");
    assert_eq!(monitor.stderr(), "");
}
