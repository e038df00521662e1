//! The host resources that an idle Linux guest uses.

use std::time::Duration;

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::linux::{ANY, BY_SIGTERM, CMDLINE, boot};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![host_idle_guest_costs_next_to_nothing]
}

fn host_idle_guest_costs_next_to_nothing() {
    let mut shell = Shell::boot(boot(ANY, CMDLINE).on_terminal());
    // The shell queries the cursor position after its prompt.
    shell.monitor.expect("\x1b[6n", DEADLINE);
    // Linux still has background work for a while after its boot.
    shell.monitor.expect_quiet(Duration::from_secs(1));
    let before = (shell.monitor.main_cpu_time(), shell.monitor.cpu_time());
    shell.monitor.expect_quiet(Duration::from_secs(2));
    let main = shell.monitor.main_cpu_time() - before.0;
    let all = shell.monitor.cpu_time() - before.1;
    assert!(main <= Duration::from_millis(20), "the event loop: {main:?} in 2 s");
    // The guest's own timers wake it a few times a second, which is expensive where KVM is emulated.
    assert!(all <= Duration::from_millis(500), "all threads: {all:?} in 2 s");
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_code(BY_SIGTERM, DEADLINE);
}
