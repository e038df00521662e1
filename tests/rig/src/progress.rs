//! Lines on stderr for the steps that a person waits for.

use std::io::Write;
use std::time::{Duration, Instant};

/// Steps shorter than this aren't worth a second line.
const NOTABLE: Duration = Duration::from_secs(2);

/// Prints one line about what happens or was chosen.
pub fn note(text: &str) {
    // Standard error may be closed; a progress line is no reason to fail.
    let _ = writeln!(std::io::stderr(), "-> {text}");
}

/// Announces a step that may take seconds, runs it, and says how long it took if that was long.
pub fn step<T>(text: &str, work: impl FnOnce() -> T) -> T {
    note(text);
    let start = Instant::now();
    let result = work();
    if start.elapsed() >= NOTABLE {
        note(&format!("{text}: {:.0} s", start.elapsed().as_secs_f64()));
    }
    result
}
