//! Statistics of exits by kind and place.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::{ExitKind, TracedExit};

/// Maximum number of rows, so that memory is bounded. Exits at further places share one more row.
const MAX_ROWS: usize = 1024;

/// Numbers of exits, and time spent on them, by kind and place.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    rows: HashMap<ExitKind, Row>,
    /// Exits at places beyond [`MAX_ROWS`].
    rest: Row,
    inside: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    count: u64,
    outside: Duration,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.count += other.count;
        self.outside += other.outside;
    }
}

impl Summary {
    /// Counts an exit.
    pub fn add(&mut self, exit: &TracedExit) {
        self.inside += exit.inside;
        self.add_row(exit.kind, Row { count: 1, outside: exit.outside });
    }

    /// Adds the exits of another vCPU's summary.
    pub fn merge(&mut self, other: &Summary) {
        self.inside += other.inside;
        self.rest.add(other.rest);
        other.rows.iter().for_each(|(kind, row)| self.add_row(*kind, *row));
    }

    /// The total number of exits.
    pub fn count(&self) -> u64 {
        self.rows.values().map(|row| row.count).sum::<u64>() + self.rest.count
    }

    /// The number of exits of this kind at this place, 0 if they are counted in the shared row.
    pub fn count_of(&self, kind: ExitKind) -> u64 {
        self.rows.get(&kind).map_or(0, |row| row.count)
    }

    fn add_row(&mut self, kind: ExitKind, row: Row) {
        if self.rows.len() < MAX_ROWS || self.rows.contains_key(&kind) {
            self.rows.entry(kind).or_default().add(row);
        } else {
            self.rest.add(row);
        }
    }

    fn outside(&self) -> Duration {
        self.rows.values().map(|row| row.outside).sum::<Duration>() + self.rest.outside
    }
}

/// A table without its [`HEADER`](Summary::HEADER), with the most frequent exit first. The columns are kind, port or address,
/// count, rate per second of the vCPUs' total time, and the share of that time that was spent outside the guest.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.inside + self.outside();
        let seconds = total.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut line = |kind: &str, place: &str, row: Row| {
            let rate = row.count as f64 / seconds;
            let share = 100.0 * row.outside.as_secs_f64() / seconds;
            writeln!(f, "{kind:<8} {place:>12} {:>10} {rate:>11.0} {share:>8.1}%", row.count)
        };
        let mut rows: Vec<_> = self.rows.iter().collect();
        // Also by kind, so that the order doesn't depend on hashes.
        rows.sort_by_key(|(kind, row)| (std::cmp::Reverse(row.count), **kind));
        for (kind, row) in rows {
            let place = kind.place().map(|place| format!("{place:#06x}")).unwrap_or_default();
            line(kind.name(), &place, *row)?;
        }
        if self.rest.count > 0 {
            line("others", "", self.rest)?;
        }
        line("total", "", Row { count: self.count(), outside: self.outside() })
    }
}

impl Summary {
    /// The table's header line.
    pub const HEADER: &str = "exit            where      count      rate/s  outside\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(count: u64, outside_ms: u64) -> Row {
        Row { count, outside: Duration::from_millis(outside_ms) }
    }

    #[test]
    fn summary_shows_the_most_frequent_exit_first_with_rate_and_share() {
        let mut summary = Summary { inside: Duration::from_millis(1500), ..Default::default() };
        summary.add_row(ExitKind::Halt, row(1, 0));
        summary.add_row(ExitKind::PortOut(0x3f8), row(100, 500));
        let expected = "\
out            0x03f8        100          50     25.0%
halt                           1           0      0.0%
total                        101          50     25.0%
";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn summary_of_more_places_than_rows_counts_the_rest_together() {
        let mut summary = Summary::default();
        (0..2000).for_each(|port| summary.add_row(ExitKind::PortIn(port), row(1, 0)));
        assert_eq!((summary.rows.len(), summary.rest.count, summary.count()), (1024, 976, 2000));
    }

    #[test]
    fn summaries_of_two_vcpus_add_up() {
        let mut first = Summary::default();
        first.add_row(ExitKind::Halt, row(2, 1));
        let mut second = Summary::default();
        second.add_row(ExitKind::Halt, row(3, 1));
        first.merge(&second);
        assert_eq!(first.count_of(ExitKind::Halt), 5);
    }
}
