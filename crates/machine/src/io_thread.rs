//! Threads that block on files.

use std::io;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};
use vmm_hostio::crash;
use vmm_sandbox::{Allow, confine_thread};

/// Starts a thread with all signals blocked but those of crashes, which may only read, write and make `calls`: the main thread handles
/// signals. A thread inherits its creator's signal mask, so the mask is changed here during the spawn.
///
/// # Errors
/// The host is out of threads.
pub(crate) fn spawn(
    name: &str,
    stack_len: usize,
    calls: &'static [Allow],
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(stack_len);
    let mut blocked = SigSet::all();
    // A blocked signal of a crash kills without the handler that restores the terminal, SIGSYS of a filter's without a message.
    crash::SIGNALS.into_iter().for_each(|signal| blocked.remove(signal));
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let role = name.to_owned();
    let spawned = thread.spawn(move || {
        confine_thread(&role, &[calls]).expect("a filter was accepted at the start");
        body();
    });
    before.thread_set_mask()?;
    spawned
}
