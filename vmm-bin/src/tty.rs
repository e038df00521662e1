//! The terminal's raw mode, and the way back from it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::outcome::Failure;

/// The terminal's modes as we found them, while it is raw. A panic needs them wherever it happens.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);
/// Whether the terminal is raw; apart from the lock, so that the log never waits.
static RAW: AtomicBool = AtomicBool::new(false);

/// Raw mode on the terminal at standard input, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it leaves raw mode"]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw: every key goes to the guest as it is typed, also Ctrl-C, and what the guest prints is shown
    /// as it is.
    pub(crate) fn enter() -> Result<Self, Failure> {
        let stdin = io::stdin();
        let failed = |errno: nix::Error| Failure::Terminal(errno.into());
        let found = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = found.clone();
        cfmakeraw(&mut raw);
        // Before the change: a panic in between restores what is there already.
        *FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(found);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        RAW.store(true, Ordering::Relaxed);
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is raw now.
pub(crate) fn is_raw() -> bool {
    RAW.load(Ordering::Relaxed)
}

fn restore() {
    let found = FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(found) = found {
        // A terminal that was closed needs no modes. TCSADRAIN would wait for ever on a stopped one.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &found);
        RAW.store(false, Ordering::Relaxed);
    }
}

/// Restores the terminal in front of a panic's message, on whichever thread.
pub(crate) fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}
