//! Progress lines on standard error.

use std::io::Write;
use std::time::{Duration, Instant};

/// Shorter steps don't get a second line.
const NOTABLE: Duration = Duration::from_secs(2);

/// Prints one line.
pub fn note(text: &str) {
    // If standard error is closed, that is fine.
    let _ = writeln!(std::io::stderr(), "-> {text}");
}

/// Announces a step that may take seconds, runs it, and prints its duration if it was long.
pub fn step<T>(text: &str, work: impl FnOnce() -> T) -> T {
    note(text);
    let start = Instant::now();
    let result = work();
    if start.elapsed() >= NOTABLE {
        note(&format!("{text}: {:.0} s", start.elapsed().as_secs_f64()));
    }
    result
}
