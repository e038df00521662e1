//! Threads that wait for files.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow};

/// Starts a thread that gets no signals: a thread inherits its signal mask, and signals are the main thread's.
///
/// # Errors
/// The host is out of threads.
pub(crate) fn spawn(name: &str, stack_len: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(stack_len);
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = thread.spawn(body);
    before.thread_set_mask()?;
    spawned.map(drop)
}
