//! Prints the table of disk throughput.

use super::super::spec::{BlockSample, BlockSpec};
use super::super::stats::{median, shown};
use super::fio::{HOST, JOBS, Job};

/// Prints a line per job: the medians of the file and of each monitor, and for a monitor also the median of its share of the file's
/// throughput in the same round.
pub(super) fn print(spec: &BlockSpec, samples: &[BlockSample]) {
    println!();
    print!("{:<38} {:<6} {HOST:>10}", "", "");
    spec.contenders.iter().for_each(|contender| print!(" {:>20}", contender.name));
    println!();
    for job in &JOBS {
        let host: Vec<Option<f64>> = rounds(spec, samples, None, job);
        print!("{:<38} {:<6} {:>10}", job.title, job.unit.name(), shown(middle(&host), 0));
        for index in 0..spec.contenders.len() {
            let guest = rounds(spec, samples, Some(index), job);
            let shares: Vec<_> =
                guest.iter().zip(&host).map(|(guest, host)| Some((*guest)? / (*host)? * 100.0)).collect();
            let share = middle(&shares).map_or(String::new(), |share| format!(" ({share:.1} %)"));
            print!(" {:>20}", format!("{}{share}", shown(middle(&guest), 0)));
        }
        println!();
    }
    let cache = if spec.direct { "bypassing the page cache" } else { "through the host's page cache" };
    println!(
        "medians of {} rounds; in brackets the share of fio's throughput on the file itself, {cache}, in the same round",
        spec.rounds
    );
}

/// A contender's figure in each round.
fn rounds(
    spec: &BlockSpec,
    samples: &[BlockSample],
    contender: Option<usize>,
    job: &Job,
) -> Vec<Option<f64>> {
    let in_round = |round| {
        let sample = samples.iter().find(|sample| sample.round == round && sample.contender == contender)?;
        sample.figures.iter().find(|figure| figure.job == job.name).map(|figure| job.unit.of(figure))
    };
    (0..spec.rounds).map(in_round).collect()
}

fn middle(values: &[Option<f64>]) -> Option<f64> {
    median(values.iter().flatten().copied().collect())
}
