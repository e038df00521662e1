//! The threads of all vCPUs of a machine together.

use std::time::{Duration, Instant};

use vmm_kvm::VcpuReport;

use crate::thread::Reporting;
use crate::{End, Error, Pausing, VcpuThread};

/// The threads of a machine's vCPUs. Dropping it stops and joins them one after the other; [`stop`](Self::stop) is faster.
pub struct VcpuThreads<S>(Vec<VcpuThread<S>>);

impl<S> Default for VcpuThreads<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Send + 'static> VcpuThreads<S> {
    /// Adds one.
    pub fn push(&mut self, vcpu: VcpuThread<S>) {
        self.0.push(vcpu);
    }

    /// How many have not been taken out.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes all out of the guest, each with its last access complete, and returns `true` when none runs. All are told before the
    /// first is waited for, so that it takes as long as the slowest, and a guest's processors stand at nearly the same moment.
    ///
    /// A vCPU leaves the guest within microseconds, unless it waits in the kernel for a page of a file that isn't there yet. After
    /// `patience` the result is `false`: some are paused, the others will be when they leave, unless they are resumed before.
    pub fn pause_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let pausing: Vec<Pausing> = self.0.iter().map(VcpuThread::begin_pause).collect();
        pausing
            .into_iter()
            .all(|pausing| pausing.wait_within(until.saturating_duration_since(Instant::now())))
    }

    /// Lets all run that are paused.
    pub fn resume(&self) {
        self.0.iter().for_each(VcpuThread::resume);
    }

    /// Ends the holds of all.
    pub fn wake(&self) {
        self.0.iter().for_each(VcpuThread::wake);
    }

    /// The state of each that has not ended, by its number. Those that don't leave the guest for `patience` are left out.
    pub fn reports_within(&self, patience: Duration) -> Vec<(u32, VcpuReport)> {
        let until = Instant::now() + patience;
        let asked: Vec<_> = self.0.iter().map(|vcpu| (vcpu.index(), vcpu.begin_report())).collect();
        let report = |(index, report): (u32, Reporting)| {
            Some((index, report.wait_within(until.saturating_duration_since(Instant::now()))?))
        };
        asked.into_iter().filter_map(report).collect()
    }

    /// Takes one that has ended out: its number, and what it ended of.
    pub fn take_ended(&mut self) -> Option<(u32, Result<End<S>, Error>)> {
        let at = self.0.iter().position(VcpuThread::has_ended)?;
        let vcpu = self.0.swap_remove(at);
        Some((vcpu.index(), vcpu.join()))
    }

    /// Stops and joins all that are left.
    pub fn stop(&mut self) {
        self.0.iter().for_each(VcpuThread::stop);
        self.0.clear();
    }
}

impl<S> std::fmt::Debug for VcpuThreads<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
