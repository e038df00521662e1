//! What a guest's work costs its monitor: how often KVM_RUN returns, and time on a processor.
//!
//! Returns are counted by the host's kernel, at the tracepoint kvm:kvm_userspace_exit, so that any monitor can be measured. That needs
//! root and a mounted tracefs; without them there is no count.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use super::super::spec::Costs;
use super::guest::Guest;

/// The tracepoint's directory (Documentation/trace/histogram.rst of Linux).
const EVENT: &str = "/sys/kernel/tracing/events/kvm/kvm_userspace_exit";
/// Counts the tracepoint's hits for each thread.
const TRIGGER: &str = "hist:keys=common_pid:size=8192";
/// What a guest prints when its counters are to be read; resources/bench/mark.
const MARK: &str = "MARK ";
/// USER_HZ of x86: the unit of times in /proc/PID/stat, as a number per second.
const TICKS_PER_S: u64 = 100;

/// Counts the returns of all monitors' KVM_RUN while it exists.
#[derive(Debug)]
pub(super) struct Counter {
    is_on: bool,
}

impl Counter {
    pub(super) fn start() -> Self {
        Self { is_on: set_trigger(TRIGGER).is_ok() }
    }

    /// What the guest's boot has cost, up to its first two marks, and the meter of its jobs.
    pub(super) fn after_boot(
        &self,
        guest: &mut Guest,
        deadline: Instant,
    ) -> Result<(Costs, Meter<'_>), String> {
        let first = self.at_mark(guest, deadline)?;
        let mark = self.at_mark(guest, deadline)?.since(&first);
        Ok((first.since(&Reading::default()), Meter { counter: self, mark }))
    }

    /// Waits for the guest's next mark, and reads the counters of the monitor.
    fn at_mark(&self, guest: &mut Guest, deadline: Instant) -> Result<Reading, String> {
        let mark = guest.next_line(MARK, deadline)?;
        let [interrupts, packets] = numbers(&mark).ok_or_else(|| format!("the guest's mark is {mark:?}"))?;
        let pid = guest.pid();
        let returns = if self.is_on { returns_of(pid) } else { None };
        Ok(Reading { returns, interrupts, packets, ticks: ticks_of(pid)? })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.is_on {
            // It would cost a little time at each exit, no more.
            let _ = set_trigger(&format!("!{TRIGGER}"));
        }
    }
}

/// Measures a guest's jobs.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    counter: &'a Counter,
    /// What a mark costs by itself: printing it makes some dozens of exits.
    mark: Costs,
}

impl Meter<'_> {
    /// What the guest's next job costs, from the mark before it to the mark after it.
    pub(super) fn job(&self, guest: &mut Guest, deadline: Instant) -> Result<Costs, String> {
        let before = self.counter.at_mark(guest, deadline)?;
        Ok(without(self.counter.at_mark(guest, deadline)?.since(&before), &self.mark))
    }
}

/// `costs` without those of a mark. Packets and interrupts don't come from marks.
fn without(costs: Costs, mark: &Costs) -> Costs {
    Costs {
        returns: costs.returns.zip(mark.returns).map(|(job, mark)| job.saturating_sub(mark)),
        cpu_ms: costs.cpu_ms.saturating_sub(mark.cpu_ms),
        ..costs
    }
}

/// The counters of a guest and of its monitor since their start.
#[derive(Clone, Copy, Debug)]
struct Reading {
    returns: Option<u64>,
    interrupts: u64,
    packets: u64,
    ticks: u64,
}

impl Reading {
    /// What has been counted since `before`.
    fn since(&self, before: &Self) -> Costs {
        Costs {
            returns: self.returns.zip(before.returns).map(|(after, before)| after.saturating_sub(before)),
            interrupts: self.interrupts.saturating_sub(before.interrupts),
            packets: self.packets.saturating_sub(before.packets),
            cpu_ms: self.ticks.saturating_sub(before.ticks) * 1000 / TICKS_PER_S,
        }
    }
}

impl Default for Reading {
    /// The counters at the start.
    fn default() -> Self {
        Self { returns: Some(0), interrupts: 0, packets: 0, ticks: 0 }
    }
}

fn set_trigger(trigger: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(format!("{EVENT}/trigger"))?.write_all(trigger.as_bytes())
}

/// The returns of KVM_RUN in the threads that the process has.
fn returns_of(pid: u32) -> Option<u64> {
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(name).collect();
    Some(sum_of(&fs::read_to_string(format!("{EVENT}/hist")).ok()?, &threads))
}

/// The sum of the hits of these threads in a histogram such as `{ common_pid:        412 } hitcount:         17`.
fn sum_of(histogram: &str, threads: &HashSet<u64>) -> u64 {
    let hits = |line: &str| {
        let (thread, hits) = line.strip_prefix("{ common_pid:")?.split_once("} hitcount:")?;
        threads.contains(&thread.trim().parse().ok()?).then_some(hits.trim().parse::<u64>().ok()?)
    };
    histogram.lines().filter_map(hits).sum()
}

/// The processor time of the process, including its guest's, and of the kernel's threads that work for it with vhost. Up to Linux 6.3
/// those aren't the process's own, and are named after a thread of it that may have ended: all that have started after the process count.
fn ticks_of(pid: u32) -> Result<u64, String> {
    let own = Stat::read(Path::new(&format!("/proc/{pid}"))).ok_or("the monitor has exited")?;
    let is_vhost = |process: &Path| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("vhost-"))
    };
    let ticks_of_worker = |entry: io::Result<fs::DirEntry>| {
        let process = entry.ok()?.path();
        let stat = if is_vhost(&process) { Stat::read(&process)? } else { return None };
        (stat.start >= own.start).then_some(stat.ticks)
    };
    let processes = fs::read_dir("/proc").map_err(|error| format!("can't list processes: {error}"))?;
    Ok(own.ticks + processes.filter_map(ticks_of_worker).sum::<u64>())
}

/// A process's user and system time, and the time of its start (proc(5), /proc/PID/stat, fields 14, 15 and 22).
struct Stat {
    ticks: u64,
    start: u64,
}

impl Stat {
    fn read(process: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(process.join("stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is a name in brackets, which may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self { ticks: number(14)? + number(15)?, start: number(22)? })
    }
}

/// The two numbers of a mark.
fn numbers(mark: &str) -> Option<[u64; 2]> {
    let (first, second) = mark.split_once(' ')?;
    Some([first.parse().ok()?, second.trim_end().parse().ok()?])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hits_of_other_processes_are_left_out() {
        let histogram = "# event histogram\n#\n\n{ common_pid:        412 } hitcount:         17\n\
            { common_pid:        413 } hitcount:          5\n{ common_pid:       4130 } hitcount:        100\n\n\
            Totals:\n    Hits: 122\n    Entries: 3\n    Dropped: 0\n";
        assert_eq!(sum_of(histogram, &HashSet::from([412, 413])), 22);
    }

    #[test]
    fn marks_are_two_numbers() {
        assert_eq!(numbers("17 3"), Some([17, 3]));
        assert_eq!(numbers("17"), None);
    }

    #[test]
    fn ticks_grow_with_the_work_that_a_process_does() {
        let before = ticks_of(std::process::id()).unwrap();
        let start = Instant::now();
        while ticks_of(std::process::id()).unwrap() < before + 3 {
            assert!(start.elapsed() < Duration::from_secs(60), "a minute of work isn't seen");
        }
    }

    #[test]
    fn stat_of_a_name_with_brackets_is_read() {
        let stat = "412 (a) 1 2) S 1 412 412 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 3 0 9876 1000 200";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.ticks, stat.start), (42, 9876));
    }

    #[test]
    fn costs_are_what_came_in_between() {
        let before = Reading { returns: Some(10), interrupts: 5, packets: 7, ticks: 100 };
        let after = Reading { returns: Some(30), interrupts: 6, packets: 17, ticks: 103 };
        let costs = Costs { returns: Some(20), interrupts: 1, packets: 10, cpu_ms: 30 };
        assert_eq!(after.since(&before), costs);
        assert_eq!(after.since(&Reading::default()).cpu_ms, 1030);
    }

    #[test]
    fn costs_of_a_job_are_without_those_of_a_mark() {
        let mark = Costs { returns: Some(50), interrupts: 0, packets: 0, cpu_ms: 20 };
        let job = Costs { returns: Some(70), interrupts: 9, packets: 7, cpu_ms: 300 };
        assert_eq!(without(job, &mark), Costs { returns: Some(20), cpu_ms: 280, ..job });
        assert_eq!(without(Costs { returns: None, ..job }, &mark).returns, None);
    }
}
