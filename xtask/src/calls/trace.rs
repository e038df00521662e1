//! The trace of one run of the monitor: a file per thread, of which some apply filters.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::filter::{Answer, Arguments, Filter, Permission};
use super::line::{Call, Line};
use crate::failure::Failure;

/// The name of a trace's files before the thread's number: `thread.4711`.
pub(super) const PREFIX: &str = "thread";

/// The name of the first thread.
const FIRST: &str = "main";

/// How the first thread's trace begins.
const EXECVE: &str = "[  59] execve(";

/// Numbers on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl).
const RT_SIGRETURN: u32 = 15;
const CLONE: u32 = 56;
const FORK: u32 = 57;
const VFORK: u32 = 58;
const PRCTL: u32 = 157;
const SECCOMP: u32 = 317;
const CLONE3: u32 = 435;
/// include/uapi/linux/sched.h.
const CLONE_THREAD: u32 = 0x10000;
/// PR_SET_NAME (include/uapi/linux/prctl.h).
const SET_NAME: u32 = 15;
/// SECCOMP_SET_MODE_FILTER (include/uapi/linux/seccomp.h).
const SET_FILTER: u32 = 1;

/// What a thread's filter permits, and what it was asked for: by the thread, and by those that inherited the filter.
#[derive(Debug)]
pub(super) struct Applied {
    /// The thread's name when it applied the filter.
    pub(super) thread: String,
    /// The process that the thread belongs to.
    pub(super) process: u32,
    pub(super) permissions: Vec<Permission>,
    filter: Filter,
    met: RefCell<BTreeSet<Permission>>,
    violations: RefCell<BTreeSet<String>>,
}

impl Applied {
    fn new(text: &str, thread: &str, process: u32) -> Result<Self, Failure> {
        let filter = Filter::parse(text)?;
        Ok(Self {
            thread: thread.to_owned(),
            process,
            permissions: filter.permissions()?.into_iter().collect(),
            filter,
            met: RefCell::default(),
            violations: RefCell::default(),
        })
    }

    /// The permissions without which the calls would have been violations.
    pub(super) fn met(&self) -> BTreeSet<Permission> {
        self.met.borrow().clone()
    }

    /// Calls that weren't permitted, as strace shows them.
    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.borrow().iter().cloned().collect()
    }

    fn note_violation(&self, line: String) {
        self.violations.borrow_mut().insert(line);
    }

    /// Notes a call; returns the answer.
    fn ask(&self, call: u32, arguments: Arguments) -> Result<Answer, Failure> {
        let answer = self.filter.answer(call, arguments)?;
        if answer == Answer::Allowed {
            let is_met = |permission: &&Permission| {
                permission.call == call && permission.test.is_none_or(|test| test.is_met(arguments))
            };
            self.met.borrow_mut().extend(self.permissions.iter().filter(is_met));
        }
        Ok(answer)
    }
}

/// The state of a thread while its trace is read.
#[derive(Clone)]
struct Thread {
    name: String,
    process: u32,
    filters: Vec<Rc<Applied>>,
}

/// The filters of a run.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) applied: Vec<Rc<Applied>>,
    /// How many strace couldn't read: those of a process that isn't dumpable, if strace has no CAP_SYS_PTRACE.
    pub(super) unreadable: usize,
}

/// Reads the traces of the run in `directory`.
pub(super) fn read(directory: &Path) -> Result<Filters, Failure> {
    follow_all(traces(directory)?)
}

/// `traces` are those of threads by their numbers.
fn follow_all(traces: BTreeMap<u32, String>) -> Result<Filters, Failure> {
    let mut reader = Reader { traces, filters: Filters::default() };
    // Each thread after the one that has created it. A trace that nobody has created is that of a run whose start is missing.
    while let Some(first) = reader.first() {
        reader.follow(first, Thread { name: FIRST.to_owned(), process: first, filters: Vec::new() })?;
    }
    Ok(reader.filters)
}

fn traces(directory: &Path) -> Result<BTreeMap<u32, String>, Failure> {
    let mut traces = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        let id = path.extension().and_then(OsStr::to_str).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| format!("{} is no trace of a thread", path.display()))?;
        traces.insert(id, String::from_utf8_lossy(&fs::read(&path)?).into_owned());
    }
    Ok(traces)
}

struct Reader {
    /// Of the threads that haven't been followed yet.
    traces: BTreeMap<u32, String>,
    filters: Filters,
}

impl Reader {
    /// The thread that has executed the program, or else any.
    fn first(&self) -> Option<u32> {
        let first = self.traces.iter().find(|(_, trace)| trace.starts_with(EXECVE));
        first.or_else(|| self.traces.first_key_value()).map(|(id, _)| *id)
    }

    /// Reads the trace of the thread `id`, and then those of the threads that it has created.
    fn follow(&mut self, id: u32, mut thread: Thread) -> Result<(), Failure> {
        let Some(trace) = self.traces.remove(&id) else { return Ok(()) };
        let mut created = Vec::new();
        // The same call as before adds nothing.
        let mut known = HashSet::new();
        let mut violation: Option<(Rc<Applied>, String)> = None;
        // strace may have been ended in the middle of the last one.
        for line in trace.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let parsed =
                Line::parse(line).ok_or_else(|| format!("a line that strace doesn't print: {line:.200}"))?;
            let Line::Call(call) = parsed else { continue };
            // The handler answers a few calls itself, and then returns.
            if let Some((filter, line)) = violation.take().filter(|_| call.number != RT_SIGRETURN) {
                filter.note_violation(line);
            }
            if let CLONE | CLONE3 | FORK | VFORK = call.number
                && let Some(new) = call.returned
            {
                created.push((new, thread.of_child(&call, new)));
            }
            if call.number == PRCTL && call.arguments()[0] == SET_NAME {
                thread.name = call.string().unwrap_or_default().to_owned();
            }
            if known.insert((call.number, call.text)) {
                violation = thread.ask(&call)?;
            }
            if call.number == SECCOMP && call.arguments()[0] == SET_FILTER && call.returned == Some(0) {
                self.apply(&call, &mut thread)?;
                known.clear();
            }
        }
        if let Some((filter, line)) = violation {
            filter.note_violation(line);
        }
        created.into_iter().try_for_each(|(new, child)| self.follow(new, child))
    }

    fn apply(&mut self, call: &Call<'_>, thread: &mut Thread) -> Result<(), Failure> {
        let text = call.text.splitn(3, ", ").nth(2).unwrap_or_default();
        if !text.starts_with('{') || text.contains("filter=0x") {
            self.filters.unreadable += 1;
            return Ok(());
        }
        let applied = Rc::new(Applied::new(text, &thread.name, thread.process)?);
        thread.filters.push(Rc::clone(&applied));
        self.filters.applied.push(applied);
        Ok(())
    }
}

impl Thread {
    /// What a new thread, or the first one of a new process, inherits.
    fn of_child(&self, call: &Call<'_>, new: u32) -> Self {
        let flags = match call.text.split_once("flags=0x") {
            Some((_, flags)) => {
                u64::from_str_radix(flags.split(',').next().unwrap_or_default(), 16).unwrap_or(0) as u32
            }
            None => call.arguments()[0],
        };
        let is_thread = call.number != FORK && call.number != VFORK && flags & CLONE_THREAD != 0;
        Self { process: if is_thread { self.process } else { new }, ..self.clone() }
    }

    /// Asks all filters; returns the one that doesn't permit the call, and the call.
    fn ask(&self, call: &Call<'_>) -> Result<Option<(Rc<Applied>, String)>, Failure> {
        let mut violation = None;
        for filter in &self.filters {
            if filter.ask(call.number, call.arguments())? == Answer::Violation {
                violation = Some((Rc::clone(filter), format!("{}({:.80})", call.name, call.text)));
            }
        }
        Ok(violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that permits these calls.
    fn seccomp(calls: &[u32]) -> String {
        let one =
            |call: &u32| format!("BPF_JUMP(0x5|0|0x10, {call:#x}, 0, 0x1), BPF_STMT(0x6|0, 0x7fff0000), ");
        let all: String = calls.iter().map(one).collect();
        let len = calls.len() * 2 + 2;
        format!(
            "[ 317] seccomp(0x1, 0, {{len={len}, filter=[BPF_STMT(0|0|0x20, 0), {all}BPF_STMT(0x6|0, 0x30000)]}}) = 0\n"
        )
    }

    fn filters(traces: &[(u32, &[&str])]) -> Filters {
        let lines =
            |lines: &[&str]| lines.iter().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        follow_all(traces.iter().map(|(id, trace)| (*id, lines(trace))).collect()).unwrap()
    }

    fn met(applied: &Applied) -> Vec<u32> {
        applied.met().iter().map(|permission| permission.call).collect()
    }

    const START: &str = r#"[  59] execve("/vmm-bin", ["vmm-bin"], 0x7ffe) = 0"#;
    const READ: &str = "[   0] read(0x3, 0x7ffe, 0x8) = 0x8";
    const WRITE: &str = "[   1] write(0x3, 0x7ffe, 0x8) = 0x8";

    #[test]
    fn calls_count_after_the_filter_was_applied() {
        let found = filters(&[(7, &[START, WRITE, &seccomp(&[0, 1]), READ])]);
        let [applied] = &found.applied[..] else { panic!("{found:?}") };
        assert_eq!((applied.thread.as_str(), applied.process, met(applied)), ("main", 7, vec![0]));
        assert_eq!(applied.permissions.len(), 2);
    }

    #[test]
    fn thread_that_inherits_a_filter_needs_it_too() {
        let clone = "[  56] clone(0x3d0f00, 0x7ff3, 0x7ff3, 0x7ff3, 0x7ff3) = 0x3";
        let name = r#"[ 157] prctl(0xf, "vq-my disk")  = 0"#;
        let found = filters(&[
            (3, &[name, READ, &seccomp(&[1]), WRITE]),
            (7, &[START, &seccomp(&[0, 1, 2, 56, 157, 317]), clone]),
        ]);
        let [main, disk] = &found.applied[..] else { panic!("{found:?}") };
        assert_eq!(met(main), [0, 1, 56, 157, 317]);
        assert_eq!((disk.thread.as_str(), disk.process, met(disk)), ("vq-my disk", 7, vec![1]));
    }

    #[test]
    fn child_process_has_its_own_number_and_no_filter_that_came_later() {
        let fork = "[  56] clone(0x1200011, 0, 0, 0x5555, 0) = 0x9";
        let found = filters(&[(7, &[START, fork, &seccomp(&[0])]), (9, &[&seccomp(&[1]), WRITE])]);
        let processes: Vec<u32> = found.applied.iter().map(|applied| applied.process).collect();
        assert_eq!(processes, [7, 9]);
        assert!(met(&found.applied[0]).is_empty());
    }

    #[test]
    fn thread_of_clone3_belongs_to_its_creators_process() {
        let clone3 = "[ 435] clone3({flags=0x3d0f00, exit_signal=0} => {parent_tid=[8]}, 88) = 8";
        let found = filters(&[(7, &[START, clone3]), (8, &[&seccomp(&[1])])]);
        assert_eq!(found.applied[0].process, 7);
    }

    #[test]
    fn call_outside_the_filter_is_a_violation_unless_its_handler_returns() {
        let personality = "[ 135] personality(0xffffffff) = 0x87";
        let opened = "[ 257] openat(0xffffff9c, 0x7f21, 0x80000) = 0x101";
        let returned = "[  15] rt_sigreturn(0x7f21) = 0xfffffffffffffffe";
        let found = filters(&[(7, &[START, &seccomp(&[0, 15]), opened, returned, READ, personality, READ])]);
        assert_eq!(found.applied[0].violations(), ["personality(0xffffffff)"]);
        let found = filters(&[(7, &[START, &seccomp(&[0, 15]), personality])]);
        assert_eq!(found.applied[0].violations(), ["personality(0xffffffff)"]);
    }

    #[test]
    fn filter_that_strace_could_not_read_is_counted() {
        let found = filters(&[(7, &[START, "[ 317] seccomp(0x1, 0, {len=341, filter=0x7f55}) = 0", READ])]);
        assert_eq!((found.applied.len(), found.unreadable), (0, 1));
    }

    #[test]
    fn last_line_that_is_cut_is_left_out_and_another_one_is_an_error() {
        let traces = |text: &str| BTreeMap::from([(7, format!("{START}\n{}{text}", seccomp(&[0])))]);
        assert_eq!(
            met(&follow_all(traces("[   0] read(0x3, 0x7ffe, 0x8) = 0x8\n[ 13")).unwrap().applied[0]),
            [0]
        );
        assert!(follow_all(traces("[ 13\n")).is_err());
    }
}
