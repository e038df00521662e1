//! The host CPUs of the vCPU threads.

use std::fmt;
use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use vmm_config::HostCpus;

use crate::Error;
use crate::error::HostContext;
use crate::ranges::Ranges;

/// The calling thread (sched_setaffinity(2)).
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The CPUs of the host that one thread may run on, in ascending order, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity(Vec<usize>);

impl Affinity {
    pub(crate) fn new(requested: &HostCpus) -> Self {
        let mut cpus: Vec<usize> = requested.iter().map(|cpu| cpu.get().into()).collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }

    /// Binds the calling thread to these CPUs. A vCPU's thread does this before it waits for its first command, so that no guest
    /// code runs elsewhere.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let mut set = CpuSet::new();
        self.0.iter().try_for_each(|cpu| set.set(*cpu))?;
        Ok(sched_setaffinity(THIS_THREAD, &set)?)
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ranges::of(self.0.iter().copied()).fmt(f)
    }
}

/// Checks that this process may run on all of these CPUs. A cpuset, as in a container, or an inherited affinity can exclude some
/// of the host's.
pub(crate) fn check(affinities: &[Affinity]) -> Result<(), Error> {
    if affinities.is_empty() {
        return Ok(());
    }
    let allowed = sched_getaffinity(THIS_THREAD).map_err(io::Error::from).context("sched_getaffinity")?;
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
    for (index, Affinity(cpus)) in affinities.iter().enumerate() {
        if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            let allowed = Ranges::of(allowed.iter().copied()).to_string();
            return Err(Error::HostAffinity { index, cpu: *cpu, allowed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(numbers: &[u64]) -> Affinity {
        let cpus: Vec<_> = numbers.iter().map(|number| (*number).try_into().unwrap()).collect();
        Affinity::new(&cpus.try_into().unwrap())
    }

    /// The first CPU that this test may use.
    fn allowed() -> usize {
        let set = sched_getaffinity(THIS_THREAD).unwrap();
        (0..CpuSet::count()).find(|cpu| set.is_set(*cpu).unwrap()).unwrap()
    }

    #[test]
    fn affinity_is_shown_as_the_kernel_shows_it() {
        assert_eq!(affinity(&[8, 0, 1, 3, 1]).to_string(), "0-1,3,8");
    }

    #[test]
    fn affinity_to_a_cpu_that_is_not_there_names_it() {
        let there = allowed() as u64;
        let error = check(&[affinity(&[there]), affinity(&[there, 1023])]).unwrap_err().to_string();
        let expected = "cpus.affinity[1]: this process can't run on CPU 1023 of the host, only on ";
        assert!(error.starts_with(expected), "{error}");
    }

    /// More than the CPU_SETSIZE of nix and the C library.
    #[test]
    fn affinity_beyond_the_largest_set_is_refused() {
        assert!(check(&[affinity(&[8191])]).is_err());
        assert!(affinity(&[8191]).apply().is_err());
    }

    #[test]
    fn affinity_is_applied_to_the_thread_that_asks() {
        let cpu = allowed();
        let on_a_thread = std::thread::spawn(move || {
            affinity(&[cpu as u64]).apply().unwrap();
            let set = sched_getaffinity(THIS_THREAD).unwrap();
            (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(on_a_thread.join().unwrap(), [cpu]);
    }
}
