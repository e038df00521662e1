//! All tests once more with programs that are linked dynamically and run with a newer C library than this host's, which may make
//! other system calls. They run on request, because the library must be fetched.

use std::env;
use std::fs;

use driver::{DEADLINE, LIBC_DIR, Stdin};
use harness::{Setting, trials};
use libtest_mimic::Trial;

use crate::common::boot;

/// The first thread has the loader's name.
const LEFT_OUT: &str = "monitor_threads_have_names";

pub(crate) fn tests(all: Vec<Trial>) -> Vec<Trial> {
    let again = all.into_iter().filter(|test| !test.has_ignored_flag() && test.name() != LEFT_OUT);
    let own = trials![newest_libc_is_that_of_the_monitor];
    let tests = own.into_iter().chain(again);
    tests.map(|test| test.with_kind(Setting::NewestLibc.name()).with_ignored_flag(true)).collect()
}

/// Without the sandbox, because an ordinary user can't look at a confined monitor.
fn newest_libc_is_that_of_the_monitor() {
    let libc = env::var(LIBC_DIR).expect("it is set in this setting") + "/libc.so.6";
    let mut monitor = boot("echo").stdin(Stdin::Pipe).args(["--sandbox", "off"]).start();
    monitor.expect("ready\n", DEADLINE);
    let maps = fs::read_to_string(format!("/proc/{}/maps", monitor.pid())).unwrap();
    assert!(maps.lines().any(|line| line.ends_with(&libc)), "{maps}");
}
