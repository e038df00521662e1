//! One run of one monitor.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::spec::{Contender, Sample, Spec};
use super::smaps::resident_kib;

/// The first words of init, and of the prompt after it.
const INIT_LINE: &str = "INIT-UP ";
const PROMPT: &str = "~ # ";
/// From the line of init to the prompt: a few mounts and a shell.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// What our monitor logs with -v: `first KVM_RUN after 5000 us, of which kernel file 3000 us`.
const FIRST_RUN: &str = "first KVM_RUN after ";
const KERNEL_FILE: &str = "kernel file ";
const ERROR_LINES: usize = 3;

/// Kills the monitor when the run is over, however it went.
struct Monitor(Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn once(index: usize, contender: &Contender, spec: &Spec) -> Sample {
    let mut sample = Sample { contender: index, ..Sample::default() };
    if let Err(error) = measure(contender, spec, &mut sample) {
        sample.error = Some(error);
    }
    sample
}

fn measure(contender: &Contender, spec: &Spec, sample: &mut Sample) -> Result<(), String> {
    let mut command = Command::new(&contender.argv[0]);
    command.args(&contender.argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut monitor =
        Monitor(command.spawn().map_err(|error| format!("can't start {}: {error}", contender.argv[0]))?);
    let pid = monitor.0.id();
    let output = reader(monitor.0.stdout.take().expect("its standard output is a pipe"));
    let log = line_reader(monitor.0.stderr.take().expect("its standard error is a pipe"));

    let limit = Duration::from_secs(spec.timeout_s);
    let mut seen = String::new();
    let up = wait_for(&output, INIT_LINE, &mut seen, start + limit);
    if let Ok(at) = up {
        sample.to_init_ms = Some((at - start).as_secs_f64() * 1000.0);
        // A guest without a prompt of this kind is measured a little later.
        let _ = wait_for(&output, PROMPT, &mut seen, at + PROMPT_TIMEOUT);
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"));
        sample.resident_kib = smaps.ok().map(|smaps| resident_kib(&smaps, spec.mem_mib));
    }
    drop(monitor);
    let log: Vec<String> = log.iter().collect();
    sample.first_run_us = log.iter().find_map(|line| number_after(line, FIRST_RUN));
    sample.kernel_file_us = log.iter().find_map(|line| number_after(line, KERNEL_FILE));
    up.map(drop).map_err(|problem| {
        let last = log.iter().rev().take(ERROR_LINES).rev().cloned().collect::<Vec<_>>().join(" | ");
        format!("no line of init: {problem} {last}")
    })
}

/// Reads until `text` has come and returns when that was.
fn wait_for(
    output: &Receiver<(Instant, Vec<u8>)>,
    text: &str,
    seen: &mut String,
    deadline: Instant,
) -> Result<Instant, &'static str> {
    let mut arrived = Instant::now();
    while !seen.contains(text) {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, piece)) => {
                arrived = at;
                seen.push_str(&String::from_utf8_lossy(&piece));
            }
            Err(RecvTimeoutError::Timeout) => return Err("time is up"),
            Err(RecvTimeoutError::Disconnected) => return Err("the monitor has ended"),
        }
    }
    Ok(arrived)
}

/// Sends what comes, with its time. Ends with the pipe.
fn reader(mut pipe: impl Read + Send + 'static) -> Receiver<(Instant, Vec<u8>)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut piece) {
            if sender.send((Instant::now(), piece[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    receiver
}

fn line_reader(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The number that follows `marker` in `line`.
fn number_after(line: &str, marker: &str) -> Option<u64> {
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
