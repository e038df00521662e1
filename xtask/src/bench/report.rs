//! Prints the table of start-up time and memory.

use std::fs;
use std::path::Path;

use super::spec::{Sample, Spec};
use super::stats::{median, ratio, shown};

/// Prints each monitor's medians and their ratios to the first monitor's, and the size of our program.
pub(super) fn print(spec: &Spec, samples: &[Sample], monitor: Option<&Path>) {
    println!();
    println!(
        "{:<24} {:>9} {:>7} {:>13} {:>7} {:>14} {:>6}",
        "", "to init", "ratio", "own memory", "ratio", "to KVM_RUN", "runs"
    );
    let rows: Vec<Row> = (0..spec.contenders.len()).map(|index| Row::of(index, samples)).collect();
    for (contender, row) in spec.contenders.iter().zip(&rows) {
        println!(
            "{:<24} {:>6} ms {:>7} {:>9} MiB {:>7} {:>14} {:>6}",
            contender.name,
            shown(row.to_init_ms, 0),
            shown(ratio(row.to_init_ms, rows[0].to_init_ms), 2),
            shown(row.resident_mib, 1),
            shown(ratio(row.resident_mib, rows[0].resident_mib), 2),
            row.first_run_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms")),
            format!("{}/{}", row.good_runs, spec.runs),
        );
    }
    println!("medians; to KVM_RUN: from exec, without the time for reading the kernel file");
    if let Some(metadata) = monitor.and_then(|path| fs::metadata(path).ok()) {
        println!("release binary: {:.2} MiB", metadata.len() as f64 / f64::from(1 << 20));
    }
}

struct Row {
    to_init_ms: Option<f64>,
    resident_mib: Option<f64>,
    first_run_ms: Option<f64>,
    good_runs: usize,
}

impl Row {
    fn of(contender: usize, samples: &[Sample]) -> Self {
        let own = || samples.iter().filter(|sample| sample.contender == contender && sample.error.is_none());
        let first_run = |sample: &Sample| {
            Some(sample.first_run_us?.saturating_sub(sample.kernel_file_us.unwrap_or(0)) as f64 / 1000.0)
        };
        Self {
            to_init_ms: median(own().filter_map(|sample| sample.to_init_ms).collect()),
            resident_mib: median(
                own().filter_map(|sample| Some(sample.resident_kib? as f64 / 1024.0)).collect(),
            ),
            first_run_ms: median(own().filter_map(first_run).collect()),
            good_runs: own().count(),
        }
    }
}
