//! Information about a process from proc(5).

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rustix::io::ioctl_fionread;

/// USER_HZ: the unit of times in /proc/PID/stat, 100 per second on x86.
const TICK: Duration = Duration::from_millis(10);

/// Polling interval for conditions without events.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A pipe without new data for this long is considered stuck. A guest in the rig prints a line in 10 ms.
const STUCK_FOR: Duration = Duration::from_secs(5);

/// Polls `condition` until it holds: for conditions without events, such as the state of a process.
///
/// # Panics
/// It doesn't hold by the deadline.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Waits until an unread pipe accepts no more: it holds data, and nothing has been added for a while. It
/// needn't be completely full, because Linux accepts short writes as a whole or not at all.
///
/// # Panics
/// Data is still added at `deadline`, or there is none.
#[track_caller]
pub fn wait_until_stuck(pipe: impl AsFd, deadline: Duration) {
    let mut last = (0, Instant::now());
    wait_until("the pipe takes no more", deadline, || {
        let waiting = ioctl_fionread(&pipe).expect("a pipe says how much waits in it");
        if waiting != last.0 {
            last = (waiting, Instant::now());
        }
        waiting > 0 && last.1.elapsed() >= STUCK_FOR
    });
}

fn read(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .unwrap_or_else(|error| panic!("/proc/{pid}/{file}: {error}"))
}

/// A field of /proc/PID/status in KiB, such as `VmRSS`.
pub(crate) fn status_kib(pid: Pid, field: &str) -> u64 {
    kib_field(&read(pid, "status"), field).unwrap_or_else(|| panic!("/proc/{pid}/status has no {field}"))
}

/// Dirty memory in KiB without the mappings that have one of these lengths in bytes.
pub(crate) fn dirty_kib_without(pid: Pid, lens: &[u64]) -> u64 {
    dirty_in(&read(pid, "smaps"), lens)
}

/// CPU time of all threads in user and kernel mode.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    cpu_time_in(&read(pid, "stat"))
}

/// CPU time of the first thread.
pub(crate) fn main_cpu_time(pid: Pid) -> Duration {
    cpu_time_in(&read(pid, &format!("task/{pid}/stat")))
}

fn cpu_time_in(stat: &str) -> Duration {
    // The name is in parentheses and may contain anything, including a parenthesis; numbers follow.
    let (_, fields) = stat.rsplit_once(')').expect("proc(5)");
    let field =
        |number: usize| fields.split_whitespace().nth(number - 3).and_then(|text| text.parse::<u32>().ok());
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    TICK * ticks.expect("proc(5): fields 14 and 15 are utime and stime")
}

/// The names of all threads in the order of their start.
pub(crate) fn thread_names(pid: Pid) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a process that runs");
    let mut ids: Vec<u32> = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The main thread has the process's number; others may have lower ones if the numbers have wrapped
    // around.
    ids.sort_unstable_by_key(|id| (i64::from(*id) != i64::from(pid.as_raw()), *id));
    // A thread may exit meanwhile.
    let name = |id: &u32| fs::read_to_string(format!("/proc/{pid}/task/{id}/comm")).ok();
    ids.iter().filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

/// Name of each thread, and its allowed CPUs as listed by the kernel (`0-3,8`).
pub(crate) fn thread_cpus(pid: Pid) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a process that runs");
    // A thread may exit meanwhile.
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("proc(5)").trim().to_owned()
    };
    statuses.map(|status| (field(&status, "Name"), field(&status, "Cpus_allowed_list"))).collect()
}

fn kib_field(text: &str, field: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix(field)?.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    text.lines().find_map(value)
}

fn dirty_in(smaps: &str, lens: &[u64]) -> u64 {
    let mut len = 0;
    let mut sum = 0;
    for line in smaps.lines() {
        if let Some(mapping_len) = mapping_len(line) {
            len = mapping_len;
        } else if !lens.contains(&len) {
            sum += ["Private_Dirty", "Shared_Dirty"]
                .iter()
                .filter_map(|name| kib_field(line, name))
                .sum::<u64>();
        }
    }
    sum
}

/// The length of the mapping whose first line is `line`, such as `7f00-7f80 rw-p ..`.
fn mapping_len(line: &str) -> Option<u64> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r-xp 00000000 00:00 1 /bin/vmm\nSize:  8 kB\nRss:   8 kB\nPrivate_Clean:   4 kB\nPrivate_Dirty:   4 kB\n\
10000000-12000000 rw-p 00000000 00:00 0\nSize:  32768 kB\nRss:   30000 kB\nPrivate_Dirty:   30000 kB\n\
7f0000-7f2000 rw-s 00000000 00:00 0\nRss:   12 kB\nShared_Clean:   4 kB\nShared_Dirty:   8 kB\nVmFlags: rd wr\n";

    #[test]
    fn dirty_memory_leaves_out_the_mapping_of_the_guest() {
        assert_eq!(dirty_in(SMAPS, &[32 << 20]), 12);
    }

    #[test]
    fn dirty_memory_of_a_leak_of_another_size_is_counted() {
        assert_eq!(dirty_in(SMAPS, &[64 << 20]), 30012);
    }

    #[test]
    fn cpu_time_of_ourselves_can_be_read() {
        assert!(cpu_time(Pid::this()) < Duration::from_secs(3600));
    }

    #[test]
    fn thread_names_of_ourselves_include_the_test() {
        let name = std::thread::current().name().unwrap_or_default().rsplit("::").next().unwrap().to_owned();
        assert!(!thread_names(Pid::this()).is_empty(), "{name}");
    }
}
