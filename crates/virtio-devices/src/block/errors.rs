//! Log lines about failed I/O of the host. A guest can repeat a request that fails, so they are few.

use std::io;
use std::time::{Duration, Instant};

/// Minimum time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// What failed: a request, or something that the device does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Position on the disk in bytes, where it has one.
    pub(super) offset: Option<u64>,
}

impl Operation {
    pub(super) const FLUSH: Self = Self { name: "a flush", offset: None };
    pub(super) const CLOSE: Self = Self { name: "the end of writing", offset: None };
}

/// The failures of a device.
#[derive(Debug, Default)]
pub(super) struct IoErrors {
    /// The time of the last line.
    last: Option<Instant>,
    /// Failures since then.
    unreported: u64,
    /// The next line.
    line: Option<String>,
    /// The line about the disk's failure has been returned.
    has_failed: bool,
}

impl IoErrors {
    /// Notes a failure at `now`.
    pub(super) fn note(&mut self, operation: Operation, error: &io::Error, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.unreported += 1;
            return;
        }
        let at = operation.offset.map(|offset| format!(" at byte {offset} of the disk")).unwrap_or_default();
        let others = match std::mem::take(&mut self.unreported) {
            0 => String::new(),
            count => format!(" ({count} other failures since the last one reported)"),
        };
        self.line = Some(format!("{}{at} failed: {error}{others}", operation.name));
        self.last = Some(now);
    }

    /// The line that `failure` returns for the disk's failure, once and whatever the time.
    #[must_use]
    pub(super) fn failure(&mut self, failure: impl FnOnce() -> Option<String>) -> Option<String> {
        let line = if self.has_failed { None } else { failure() };
        self.has_failed |= line.is_some();
        line
    }

    /// Takes the next line for the log, if there is one.
    #[must_use]
    pub(super) fn take(&mut self) -> Option<String> {
        self.line.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_minute_are_one_line_and_then_counted() {
        let mut errors = IoErrors::default();
        let begun = Instant::now();
        let read = Operation { name: "a read", offset: Some(4096) };
        let mut line = |operation, seconds| {
            let error = io::Error::other("no cluster there");
            errors.note(operation, &error, begun + Duration::from_secs(seconds));
            errors.take()
        };
        assert_eq!(line(read, 0).unwrap(), "a read at byte 4096 of the disk failed: no cluster there");
        assert_eq!([line(read, 1), line(Operation::FLUSH, 59)], [None, None]);
        assert_eq!(
            line(Operation::FLUSH, 60).unwrap(),
            "a flush failed: no cluster there (2 other failures since the last one reported)"
        );
        assert_eq!(line(read, 119), None);
    }
}
