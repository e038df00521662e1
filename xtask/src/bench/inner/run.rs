//! Start-up benchmark: the time from exec to the first line of init.

use std::fs;
use std::time::{Duration, Instant};

use super::super::spec::{Contender, Sample, Spec};
use super::guest::{Guest, last};
use super::smaps::resident_kib;
use crate::failure::Failure;

/// The beginning of init's first line, and the prompt that follows.
const INIT_LINE: &str = "INIT-UP ";
const PROMPT: &str = "~ # ";
/// Maximum time from init's first line to the prompt: a few mounts and the start of a shell.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Parts of a line that vmm-bin logs with -v: `first KVM_RUN after 5000 us, of which kernel file 3000 us`.
pub(super) const FIRST_RUN: &str = "first KVM_RUN after ";
const KERNEL_FILE: &str = "kernel file ";

/// Runs all rounds: in each, every monitor in turn.
pub(super) fn all(spec: &Spec) -> Result<Vec<Sample>, Failure> {
    super::warm::warm(&spec.warm)?;
    let mut samples = Vec::new();
    for round in 1..=spec.runs {
        for (index, contender) in spec.contenders.iter().enumerate() {
            let sample = once(index, contender, spec);
            let result = match (&sample.error, sample.to_init_ms) {
                (None, Some(ms)) => format!("{ms:.0} ms"),
                (error, _) => error.clone().unwrap_or_default(),
            };
            println!("run {round} of {}: {}: {result}", spec.runs, contender.name);
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn once(index: usize, contender: &Contender, spec: &Spec) -> Sample {
    let mut sample = Sample { contender: index, ..Sample::default() };
    if let Err(error) = measure(contender, spec, &mut sample) {
        sample.error = Some(error);
    }
    sample
}

fn measure(contender: &Contender, spec: &Spec, sample: &mut Sample) -> Result<(), String> {
    let start = Instant::now();
    let mut guest = Guest::start(&contender.argv)?;
    let up = guest.wait_for(INIT_LINE, start + Duration::from_secs(spec.timeout_s));
    if let Ok(at) = up {
        sample.to_init_ms = Some((at - start).as_secs_f64() * 1000.0);
        // A guest with another prompt is measured after the timeout.
        let _ = guest.wait_for(PROMPT, at + PROMPT_TIMEOUT);
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", guest.pid()));
        sample.resident_kib = smaps.ok().map(|smaps| resident_kib(&smaps, spec.mem_mib));
    }
    let log = guest.end();
    sample.first_run_us = log.iter().find_map(|line| number_after(line, FIRST_RUN));
    sample.kernel_file_us = log.iter().find_map(|line| number_after(line, KERNEL_FILE));
    up.map(drop).map_err(|problem| format!("init printed nothing: {problem} {}", last(&log)))
}

/// The number that follows `marker` in `line`.
pub(super) fn number_after(line: &str, marker: &str) -> Option<u64> {
    let rest = line.split_once(marker)?.1;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "INFO first KVM_RUN after 5120 us, of which kernel file 3011 us";

    #[test]
    fn number_first_run_is_found() {
        assert_eq!(number_after(LINE, FIRST_RUN), Some(5120));
    }

    #[test]
    fn number_kernel_file_is_found() {
        assert_eq!(number_after(LINE, KERNEL_FILE), Some(3011));
    }
}
