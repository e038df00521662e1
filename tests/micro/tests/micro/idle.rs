//! An idle guest uses no processor time.

use std::time::Duration;

use driver::{DEADLINE, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGTERM, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![halted_guest_uses_no_processor_time_and_sigterm_ends_it, monitor_threads_have_names]
}

fn halted_guest_uses_no_processor_time_and_sigterm_ends_it() {
    let mut monitor = boot("halt").start();
    monitor.expect("ready\n", DEADLINE);
    let before = monitor.cpu_time();
    monitor.expect_quiet(Duration::from_secs(1));
    let used = monitor.cpu_time() - before;
    // A tenth of what a polling guest uses; half a millisecond is typical.
    assert!(used <= Duration::from_millis(100), "{used:?} in a second");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn monitor_threads_have_names() {
    let mut monitor = boot("halt").start();
    monitor.expect("ready\n", DEADLINE);
    let program = driver::monitor_program().file_name().unwrap().to_string_lossy().into_owned();
    // Each sets its own name, and has the main thread's until then.
    wait_until("there are a main thread, the jobs' and a vCPU's", DEADLINE, || {
        let mut threads = monitor.thread_names();
        // KVM's worker threads belong to the process that has the VM.
        threads.retain(|name| !name.starts_with("kvm-"));
        threads == [program.as_str(), "jobs", "vcpu0"]
    });
}
