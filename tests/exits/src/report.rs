//! The results as tables or as JSON.

use std::fmt;

use serde::Serialize;

use crate::numbers::{Quartiles, grouped};
use crate::variant::{Scale, Variant};
use crate::workload::Workload;

/// Explanation of the columns.
pub(crate) const LEGEND: &str = "\
medians of all rounds; of bare: the rate relative to the bare loop's in the same round";

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) tables: Vec<Table>,
}

/// The results of one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    workload: &'static str,
    instruction: &'static str,
    elements_per_measurement: u64,
    elements_per_exit: f64,
    rows: Vec<Row>,
    /// The cost of tracing that is off: the rate relative to the bus variant's in the same round.
    tracing_off_of_bus: Quartiles,
    /// The cost of the sandbox: as above.
    confined_of_bus: Quartiles,
}

/// The results of one variant.
#[derive(Debug, Serialize)]
struct Row {
    variant: &'static str,
    exits_per_s: Quartiles,
    elements_per_s: Quartiles,
    /// The rate relative to the bare loop's.
    of_bare: Quartiles,
    goal: Option<f64>,
    /// Whether the median of `of_bare` reaches the goal.
    reached: Option<bool>,
}

impl Table {
    /// The table for these measurements: the seconds of each round, for each variant in the order of [`Variant::ALL`]. There must be
    /// at least one round.
    pub(crate) fn new(workload: &Workload, scale: Scale, seconds: &[Vec<f64>; Variant::ALL.len()]) -> Self {
        let of = |variant: Variant| &seconds[variant as usize];
        let ratio = |variant, to| Quartiles::of(of(to).iter().zip(of(variant)).map(|(to, own)| to / own));
        let row = |variant: Variant| {
            let elements = scale.elements as f64;
            let elements_per_s = Quartiles::of(of(variant).iter().map(|seconds| elements / seconds));
            let of_bare = ratio(variant, Variant::Bare);
            Row {
                variant: variant.name(),
                exits_per_s: elements_per_s.scaled(1.0 / scale.elements_per_exit),
                elements_per_s,
                of_bare,
                goal: variant.goal(),
                reached: variant.goal().map(|goal| of_bare.median >= goal),
            }
        };
        Self {
            workload: workload.name,
            instruction: workload.instruction,
            elements_per_measurement: scale.elements,
            elements_per_exit: scale.elements_per_exit,
            rows: Variant::ALL.map(row).into(),
            tracing_off_of_bus: ratio(Variant::TracingOff, Variant::Bus),
            confined_of_bus: ratio(Variant::Confined, Variant::Bus),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements = grouped(self.elements_per_measurement as f64);
        writeln!(f, "{}: {}", self.workload, self.instruction)?;
        writeln!(f, "{elements} elements per measurement, {:.2} per exit", self.elements_per_exit)?;
        writeln!(
            f,
            "{:<18} {:>11} {:>24} {:>12} {:>9} {:>17}  goal",
            "", "exits/s", "quartiles", "elements/s", "of bare", "quartiles"
        )?;
        for row in &self.rows {
            let Quartiles { lower, median, upper } = row.exits_per_s;
            writeln!(
                f,
                "{:<18} {:>11} {:>24} {:>12} {:>9} {:>17}  {}",
                row.variant,
                grouped(median),
                format!("{} .. {}", grouped(lower), grouped(upper)),
                grouped(row.elements_per_s.median),
                percent(row.of_bare.median),
                spread(row.of_bare),
                goal(row),
            )?;
        }
        let relative =
            [(Variant::TracingOff, self.tracing_off_of_bus), (Variant::Confined, self.confined_of_bus)];
        for (variant, rate) in relative {
            writeln!(f, "{}, relative to bus: {} ({})", variant.name(), percent(rate.median), spread(rate))?;
        }
        Ok(())
    }
}

fn goal(row: &Row) -> String {
    let Some((goal, reached)) = row.goal.zip(row.reached) else { return "-".to_owned() };
    format!("{:.0} % {}", 100.0 * goal, if reached { "reached" } else { "missed" })
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", 100.0 * ratio)
}

fn spread(ratio: Quartiles) -> String {
    format!("{:.1} .. {:.1} %", 100.0 * ratio.lower, 100.0 * ratio.upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    /// A table with two elements per exit, in which the bare loop takes 1 s for 1,024 elements.
    fn table(call_back_s: f64) -> Table {
        let seconds = [vec![1.0], vec![call_back_s], vec![1.25], vec![1.25], vec![1.25], vec![2.0]];
        Table::new(&workload::ALL[2], Scale { elements: 1024, elements_per_exit: 2.0 }, &seconds)
    }

    #[test]
    fn table_counts_exits_and_elements_apart() {
        let row = &table(1.0).rows[Variant::TracingOn as usize];
        assert_eq!((row.exits_per_s.median, row.elements_per_s.median), (256.0, 512.0));
        assert_eq!(row.of_bare.median, 0.5);
    }

    #[test]
    fn table_call_back_at_96_percent_reaches_its_goal() {
        let row = &table(1.0 / 0.96).rows[Variant::CallBack as usize];
        assert_eq!(goal(row), "95 % reached");
    }

    #[test]
    fn table_call_back_at_94_percent_misses_its_goal() {
        let row = &table(1.0 / 0.94).rows[Variant::CallBack as usize];
        assert_eq!(goal(row), "95 % missed");
    }
}
