//! Signals that would end this process are deferred while a rig runs, so that the terminal is restored and
//! the run's directory removed first.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// While one exists, the signals are recorded. Afterwards they end the process as before.
#[must_use = "signals are noted only while this exists"]
#[derive(Debug)]
pub(crate) struct Watch {
    state: &'static State,
}

#[derive(Debug)]
struct State {
    watches: Mutex<Watches>,
    /// Whether nothing watches, so that signals have their default action.
    idle: Arc<AtomicBool>,
    /// The signal received; 0 for none.
    caught: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Watches {
    count: usize,
    /// The handlers are installed, permanently.
    are_registered: bool,
}

impl Watch {
    /// Starts watching.
    pub(crate) fn start() -> io::Result<Self> {
        static STATE: OnceLock<State> = OnceLock::new();
        let state = STATE.get_or_init(|| State {
            watches: Mutex::default(),
            idle: Arc::new(AtomicBool::new(true)),
            caught: Arc::new(AtomicUsize::new(0)),
        });
        let mut watches = state.watches();
        if !watches.are_registered {
            state.register()?;
            watches.are_registered = true;
        }
        watches.count += 1;
        state.idle.store(false, Ordering::SeqCst);
        Ok(Self { state })
    }

    /// The signal received, if any.
    pub(crate) fn caught(&self) -> Option<i32> {
        match self.state.caught.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.state.watches();
        watches.count -= 1;
        self.state.idle.store(watches.count == 0, Ordering::SeqCst);
    }
}

impl State {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> io::Result<()> {
        for signal in SIGNALS {
            // In this order: while idle, the default action comes first and nothing after it.
            flag::register_conditional_default(signal, Arc::clone(&self.idle))?;
            flag::register_usize(signal, Arc::clone(&self.caught), signal as usize)?;
        }
        Ok(())
    }
}
