//! Runs the tests of one binary in parts: those of each setting in processes of their own, and many tests in two rigs concurrently,
//! because each rig uses only one host thread.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::{Arguments, Trial};
use rig::{in_rig, note};

use crate::setting::{SETTING, Setting};

/// Variable with the part of its setting's tests that a process runs, such as `0/2`; set for the processes that
/// [`run`] starts.
pub(crate) const SHARD: &str = "VMM_SHARD";
/// Number of concurrent rigs.
const RIGS: usize = 2;
/// Maximum number of shards of a setting: more than rigs, so that a rig with quick tests takes the next one.
const SHARDS: usize = 6;
/// Minimum number of tests in a shard. Starting a rig takes as long as one test.
const WORTH_IT: usize = 6;
/// Host memory required for two rigs and their guests, in KiB.
const MEMORY_KIB: u64 = 14 << 20;

/// Tests of a setting: every `count`th, starting with `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) setting: Setting,
    index: usize,
    count: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting.name(), self.shard())
    }
}

impl Part {
    /// All of a setting.
    pub(crate) fn whole(setting: Setting) -> Self {
        Self { setting, index: 0, count: 1 }
    }

    /// The part that a variable names.
    pub(crate) fn of_this_process() -> Option<Self> {
        let (setting, shard) = (Setting::of_this_process(), std::env::var(SHARD).ok());
        let whole = Self::whole(setting.unwrap_or(Setting::Usual));
        match shard {
            Some(shard) => whole.sharded(&shard),
            None => setting.map(|_| whole),
        }
    }

    fn sharded(self, text: &str) -> Option<Self> {
        let (index, count) = text.split_once('/')?;
        let part = Self { index: index.parse().ok()?, count: count.parse().ok()?, ..self };
        (part.index < part.count).then_some(part)
    }

    fn shard(self) -> String {
        format!("{}/{}", self.index, self.count)
    }

    /// Variables for a process that runs this part.
    pub(crate) fn variables(self) -> [(&'static str, String); 2] {
        [(SETTING, self.setting.name().to_owned()), (SHARD, self.shard())]
    }

    pub(crate) fn of(self, tests: Vec<Trial>) -> Vec<Trial> {
        let tests = tests.into_iter().filter(|test| self.setting.has(test));
        tests.skip(self.index).step_by(self.count).collect()
    }
}

/// The parts of what the arguments select of `tests`. `is_for_rig` says whether a setting's tests run in the rig.
pub(crate) fn parts(
    tests: &[Trial],
    arguments: &Arguments,
    is_for_rig: impl Fn(Setting) -> bool,
) -> Vec<Part> {
    let runs = |test: &&Trial| !arguments.is_filtered_out(test) && !arguments.is_ignored(test);
    let in_two_rigs = has_room_for_two();
    let count = |setting: Setting| match tests.iter().filter(runs).filter(|test| setting.has(test)).count() {
        0 => 0,
        chosen if in_two_rigs && is_for_rig(setting) => (chosen / WORTH_IT).clamp(1, SHARDS),
        _ => 1,
    };
    let of = |setting| (0..count(setting)).map(move |index| Part { setting, index, count: count(setting) });
    Setting::ALL.into_iter().flat_map(of).collect()
}

/// Whether two rigs can run at once.
fn has_room_for_two() -> bool {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    !in_rig() && threads >= RIGS && available_kib() >= MEMORY_KIB
}

fn available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs this program once per part, two at a time if there is room, and forwards the output line by line.
pub(crate) fn run(parts: &[Part]) -> ExitCode {
    let rigs = if has_room_for_two() { RIGS } else { 1 };
    note(&format!(
        "the tests run in {} parts, {rigs} at once; {SHARD}=0/1 runs only those of the usual setting, in one",
        parts.len()
    ));
    let next = AtomicUsize::new(0);
    let take_parts = || {
        let parts = std::iter::from_fn(|| parts.get(next.fetch_add(1, Ordering::Relaxed)));
        let results: Vec<bool> = parts.map(|part| run_one(*part)).collect();
        results.into_iter().all(|ok| ok)
    };
    let ok = thread::scope(|scope| {
        let rigs: Vec<_> = (0..rigs).map(|_| scope.spawn(take_parts)).collect();
        let results: Vec<bool> = rigs.into_iter().map(|rig| rig.join().is_ok_and(|ok| ok)).collect();
        results.into_iter().all(|ok| ok)
    });
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(part: Part) -> bool {
    let started = std::env::current_exe().and_then(|own| {
        let mut command = Command::new(own);
        command.args(std::env::args_os().skip(1)).envs(part.variables());
        command.envs(part.setting.prepare().map_err(io::Error::other)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    });
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            note(&format!("the tests of part {part} can't be started: {error}"));
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

    const USUAL: Part = Part { setting: Setting::Usual, index: 0, count: 1 };

    fn tests() -> Vec<Trial> {
        let usual = (0..4).map(|n| Trial::test(format!("usual_{n}"), || Ok(())));
        let as_user = (0..3).map(|n| Trial::test(format!("user_{n}"), || Ok(())).with_kind("as-user"));
        usual.chain(as_user).collect()
    }

    fn names(part: Part) -> Vec<String> {
        part.of(tests()).iter().map(|test| test.name().to_owned()).collect()
    }

    #[test]
    fn shards_are_parsed_as_they_are_shown() {
        let part = Part { setting: Setting::Usual, index: 1, count: 2 };
        assert_eq!(USUAL.sharded(&part.shard()), Some(part));
        assert_eq!(USUAL.sharded("2/2"), None);
        assert_eq!(USUAL.sharded(""), None);
    }

    #[test]
    fn shards_together_are_all_tests_of_a_setting_each_once() {
        let [first, second] = ["0/2", "1/2"].map(|shard| names(USUAL.sharded(shard).unwrap()));
        assert_eq!(
            (first, second),
            (vec!["usual_0".into(), "usual_2".into()], vec!["usual_1".into(), "usual_3".into()])
        );
        assert_eq!(names(Part::whole(Setting::AsUser)), ["user_0", "user_1", "user_2"]);
    }

    #[test]
    fn setting_without_a_selected_test_has_no_part() {
        let selected = |filter: &str| {
            let arguments = Arguments { filter: Some(filter.to_owned()), ..Arguments::default() };
            parts(&tests(), &arguments, |_| true)
        };
        assert_eq!(selected("usual"), [USUAL]);
        assert_eq!(selected("as-user"), [Part::whole(Setting::AsUser)]);
        assert_eq!(selected("_2"), [USUAL, Part::whole(Setting::AsUser)]);
        assert_eq!(selected("absent"), []);
    }

    #[test]
    fn ignored_test_makes_no_part_unless_it_is_asked_for() {
        let ignored = || vec![Trial::test("a", || Ok(())).with_kind("no-landlock").with_ignored_flag(true)];
        assert_eq!(parts(&ignored(), &Arguments::default(), |_| true), []);
        let asked = Arguments { ignored: true, ..Arguments::default() };
        assert_eq!(parts(&ignored(), &asked, |_| true), [Part::whole(Setting::NoLandlock)]);
    }
}
