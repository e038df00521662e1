//! All output of a program, recorded while it runs.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::fd::wait_ready;

/// What is known of the program so far.
#[derive(Debug, Default)]
pub(crate) struct ProgramState {
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    pub(crate) exited: bool,
}

/// One output stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    /// The stream has ended.
    pub(crate) ended: bool,
}

/// What is known of the program, shared with the listening threads.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    state: Mutex<ProgramState>,
    changed: Condvar,
}

/// Selects a stream.
pub(crate) type StreamSelector = fn(&mut ProgramState) -> &mut Stream;

impl Transcript {
    pub(crate) fn state(&self) -> MutexGuard<'_, ProgramState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes a change and wakes all waiting threads.
    pub(crate) fn note(&self, change: impl FnOnce(&mut ProgramState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until `look` finds something; `None` if `until` comes first.
    pub(crate) fn wait<T>(
        &self,
        until: Instant,
        mut look: impl FnMut(&ProgramState) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Records the data from `fd` on a thread, which exits at the end of the data.
    pub(crate) fn follow(self: &Arc<Self>, fd: OwnedFd, which: StreamSelector) {
        let transcript = Arc::clone(self);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                // The master of a pseudo-terminal is non-blocking, because sending to it must not block.
                wait_ready(&fd, PollFlags::POLLIN, None);
                match nix::unistd::read(&fd, &mut bytes) {
                    Ok(0) => break,
                    Ok(len) => transcript.note(|state| which(state).bytes.extend_from_slice(&bytes[..len])),
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // A terminal whose other end was closed returns EIO.
                    Err(_) => break,
                }
            }
            transcript.note(|state| which(state).ended = true);
        });
    }
}

/// For a failed test: the whole transcript as text.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        writeln!(f, "--- stdout ---\n{}", state.stdout)?;
        writeln!(f, "--- stderr ---\n{}", state.stderr)?;
        write!(f, "--- the program {} ---", if state.exited { "has exited" } else { "runs" })
    }
}

/// As text with escapes, and without the middle of very long output.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Number of bytes shown at each end: more than two screens.
        const END_LEN: usize = 8 << 10;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\n", "\n").replace("\\r", "");
        match self.bytes.len().checked_sub(2 * END_LEN) {
            None | Some(0) => f.write_str(&text(&self.bytes)),
            Some(left_out) => {
                let (first, last) = (&self.bytes[..END_LEN], &self.bytes[END_LEN + left_out..]);
                write!(f, "{}\n[.. {left_out} bytes ..]\n{}", text(first), text(last))
            }
        }
    }
}

/// Position of `needle` in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
