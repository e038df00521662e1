//! Disk benchmark: the same fio jobs in each monitor's guest and on the file of their disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::block::fio;
use super::super::spec::{BlockSample, BlockSpec, Costs, Figure};
use super::costs::Counter;
use super::guest::Guest;
use crate::failure::Failure;

/// The guest prints this at the end, followed by fio's exit code.
const END_LINE: &str = "FIO-END ";
/// The disk's file is filled in pieces of this length, so that it has no holes.
const PIECE_LEN: usize = 1 << 20;

/// Removes the disk's file when it is dropped.
struct DiskFile<'a>(&'a Path);

impl Drop for DiskFile<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

/// Runs all rounds: in each, the file first and then each guest.
pub(super) fn all(spec: &BlockSpec) -> Result<Vec<BlockSample>, Failure> {
    super::warm::warm(&spec.warm)?;
    let write_error = |error| format!("can't write {}: {error}", spec.disk.display());
    let mut file = File::create_new(&spec.disk).map_err(write_error)?;
    let _disk = DiskFile(&spec.disk);
    let piece = vec![0xa5; PIECE_LEN];
    (0..spec.disk_mib).try_for_each(|_| file.write_all(&piece)).map_err(write_error)?;
    file.sync_all().map_err(write_error)?;
    drop(file);

    let counter = Counter::start();
    let mut samples = Vec::new();
    for round in 0..spec.rounds {
        samples.push(sample(spec, round, None, host(spec).map(|figures| (figures, None))));
        for (index, contender) in spec.contenders.iter().enumerate() {
            samples.push(sample(spec, round, Some(index), guest(spec, &contender.argv, &counter)));
        }
    }
    Ok(samples)
}

/// The jobs' results, and what the boot has cost.
type Measured = (Vec<Figure>, Option<Costs>);

fn sample(
    spec: &BlockSpec,
    round: u32,
    contender: Option<usize>,
    result: Result<Measured, String>,
) -> BlockSample {
    let name = contender.map_or(fio::HOST, |index| &spec.contenders[index].name);
    let words = match &result {
        Ok((figures, _)) => format!("{} jobs", figures.len()),
        Err(error) => error.clone(),
    };
    println!("round {} of {}: {name}: {words}", round + 1, spec.rounds);
    let (figures, boot, error) = match result {
        Ok((figures, boot)) => (figures, boot, None),
        Err(error) => (Vec::new(), None, Some(error)),
    };
    BlockSample { round, contender, figures, boot, error }
}

/// Runs fio on the file itself.
fn host(spec: &BlockSpec) -> Result<Vec<Figure>, String> {
    let output = Command::new(&spec.fio[0])
        .args(&spec.fio[1..])
        .env("DISK", &spec.disk)
        .env("DIRECT", if spec.direct { "1" } else { "0" })
        .env("SECONDS_EACH", spec.seconds.to_string())
        .output()
        .map_err(|error| format!("can't start {}: {error}", spec.fio[0]))?;
    if !output.status.success() {
        return Err(format!("fio: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    fio::figures(&String::from_utf8_lossy(&output.stdout))
}

/// Runs fio in the guest of a monitor, on the disk whose backend is the file.
fn guest(spec: &BlockSpec, argv: &[String], counter: &Counter) -> Result<Measured, String> {
    let mut guest = Guest::start(argv)?;
    let deadline = Instant::now() + Duration::from_secs(spec.timeout_s);
    let costs = costs(&mut guest, counter, deadline);
    let (boot, costs) = match costs {
        Ok(costs) => costs,
        Err(problem) => return Err(guest.end_with(&problem)),
    };
    match guest.line(END_LINE, deadline).as_deref() {
        Ok("0") => {
            let figures = fio::figures(guest.said())?.into_iter().zip(costs);
            Ok((figures.map(|(figure, costs)| Figure { costs: Some(costs), ..figure }).collect(), Some(boot)))
        }
        Ok(code) => Err(guest.end_with(&format!("fio in the guest: exit code {code}"))),
        Err(problem) => Err(guest.end_with(problem)),
    }
}

/// What the boot and each job cost.
fn costs(guest: &mut Guest, counter: &Counter, deadline: Instant) -> Result<(Costs, Vec<Costs>), String> {
    let (boot, meter) = counter.after_boot(guest, deadline)?;
    let jobs = fio::JOBS.iter().map(|_| meter.job(guest, deadline));
    Ok((boot, jobs.collect::<Result<_, String>>()?))
}
