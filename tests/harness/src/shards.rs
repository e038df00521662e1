//! Runs the tests of one binary in two rigs concurrently, because each rig uses only one host thread.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::{Arguments, Trial};
use rig::{in_rig, note};

/// Variable with the part of the tests that a process runs, such as `0/2`; set for the processes that [`run`]
/// starts.
pub(crate) const SHARD: &str = "VMM_SHARD";
/// Number of concurrent rigs.
const RIGS: usize = 2;
/// Number of parts: more than rigs, so that a rig with quick tests takes the next part. Starting a rig takes
/// as long as one test.
const PARTS: usize = 6;
/// Minimum number of tests for which a second rig pays off.
const WORTH_IT: usize = 12;
/// Host memory required for two rigs and their guests, in KiB.
const MEMORY_KIB: u64 = 14 << 20;

/// A part of the tests: every `count`th, starting with `index`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    count: usize,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl Shard {
    pub(crate) fn of_this_process() -> Option<Self> {
        Self::parse(std::env::var(SHARD).ok()?.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let (index, count) = text.split_once('/')?;
        let shard = Self { index: index.parse().ok()?, count: count.parse().ok()? };
        (shard.index < shard.count).then_some(shard)
    }

    pub(crate) fn of(&self, tests: Vec<Trial>) -> Vec<Trial> {
        tests.into_iter().skip(self.index).step_by(self.count).collect()
    }
}

/// Whether the tests selected by the arguments justify several rigs, and the host has enough memory.
pub(crate) fn are_worth_it(tests: &[Trial], arguments: &Arguments) -> bool {
    let is_chosen =
        |test: &&Trial| arguments.filter.as_ref().is_none_or(|filter| test.name().contains(filter.as_str()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    !in_rig()
        && threads >= RIGS
        && tests.iter().filter(is_chosen).count() >= WORTH_IT
        && available_kib() >= MEMORY_KIB
}

fn available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs this program once per part, two at a time, and forwards the output line by line.
pub(crate) fn run() -> ExitCode {
    note(&format!("the tests run in {RIGS} rigs at once, in {PARTS} parts; {SHARD}=0/1 keeps them in one"));
    let next = AtomicUsize::new(0);
    let take_parts = || {
        let parts = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed))
            .take_while(|index| *index < PARTS);
        let results: Vec<bool> = parts.map(|index| run_one(&Shard { index, count: PARTS })).collect();
        results.into_iter().all(|ok| ok)
    };
    let ok = thread::scope(|scope| {
        let rigs: Vec<_> = (0..RIGS).map(|_| scope.spawn(take_parts)).collect();
        let results: Vec<bool> = rigs.into_iter().map(|rig| rig.join().is_ok_and(|ok| ok)).collect();
        results.into_iter().all(|ok| ok)
    });
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(shard: &Shard) -> bool {
    let started = std::env::current_exe().and_then(|own| {
        let mut command = Command::new(own);
        command.args(std::env::args_os().skip(1)).env(SHARD, shard.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    });
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            note(&format!("the tests of part {shard} can't be started: {error}"));
            return false;
        }
    };
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        // Whole lines, so that the output of two parts isn't mixed. If the reader has gone, that is fine.
        let _ = writeln!(std::io::stdout(), "{}", line.unwrap_or_default());
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_parsed_as_they_are_shown() {
        let shard = Shard { index: 1, count: 2 };
        assert_eq!(Shard::parse(&shard.to_string()), Some(shard));
        assert_eq!(Shard::parse("2/2"), None);
        assert_eq!(Shard::parse(""), None);
    }

    #[test]
    fn shards_together_are_all_tests_each_once() {
        let all = || ["a", "b", "c", "d", "e"].map(|name| Trial::test(name, || Ok(()))).into_iter().collect();
        let names =
            |index| Shard { index, count: 2 }.of(all()).iter().map(|test| test.name().to_owned()).collect();
        let (first, second): (Vec<String>, Vec<String>) = (names(0), names(1));
        assert_eq!((first, second), (vec!["a".into(), "c".into(), "e".into()], vec!["b".into(), "d".into()]));
    }
}
