//! The threads of all vCPUs of a machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_kvm::{VcpuReport, VcpuState};

use crate::thread::{PendingReport, PendingState, StateReader};
use crate::{End, Error, PendingPause, VcpuThread};

/// The threads of all vCPUs of a machine. Dropping it stops and joins one after the other; [`stop`](Self::stop) is faster.
pub struct VcpuThreads<S>(Vec<VcpuThread<S>>);

impl<S> Default for VcpuThreads<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Send + 'static> VcpuThreads<S> {
    /// Adds a vCPU's thread.
    pub fn push(&mut self, vcpu: VcpuThread<S>) {
        self.0.push(vcpu);
    }

    /// Number of vCPUs, without those removed by [`take_ended`](Self::take_ended).
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Pauses all vCPUs, each with its last access complete, and returns whether all are paused within `timeout`. All are kicked
    /// before the first is waited for, so that they stop at nearly the same time, and pausing takes as long as the slowest.
    ///
    /// A vCPU leaves the guest within microseconds, unless it waits in the kernel for a page of a file to be read. After the
    /// timeout, the remaining vCPUs pause when they leave the guest, unless they are resumed before.
    pub fn pause_within(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let pausing: Vec<PendingPause> = self.0.iter().map(VcpuThread::begin_pause).collect();
        pausing
            .into_iter()
            .all(|pausing| pausing.wait_within(deadline.saturating_duration_since(Instant::now())))
    }

    /// Resumes all paused vCPUs.
    pub fn resume(&self) {
        self.0.iter().for_each(VcpuThread::resume);
    }

    /// Wakes all held vCPUs, which then check whether they are still held.
    pub fn wake(&self) {
        self.0.iter().for_each(VcpuThread::wake);
    }

    /// Returns the index and the state of each vCPU that hasn't ended. Omits vCPUs that don't leave the guest within `timeout`.
    pub fn reports_within(&self, timeout: Duration) -> Vec<(u32, VcpuReport)> {
        let deadline = Instant::now() + timeout;
        let pending: Vec<_> = self.0.iter().map(|vcpu| (vcpu.index(), vcpu.begin_report())).collect();
        let report = |(index, report): (u32, PendingReport)| {
            Some((index, report.wait_within(deadline.saturating_duration_since(Instant::now()))?))
        };
        pending.into_iter().filter_map(report).collect()
    }

    /// What reads the states of all vCPUs while they are paused, also from another thread.
    pub fn state_readers(&self) -> StateReaders {
        let mut readers: Vec<_> = self.0.iter().map(VcpuThread::state_reader).collect();
        readers.sort_unstable_by_key(StateReader::index);
        StateReaders(readers)
    }

    /// Removes a vCPU that has ended and returns its index and result, or `None` if none has.
    pub fn take_ended(&mut self) -> Option<(u32, Result<End<S>, Error>)> {
        let at = self.0.iter().position(VcpuThread::has_ended)?;
        let vcpu = self.0.swap_remove(at);
        Some((vcpu.index(), vcpu.join()))
    }

    /// Stops all remaining vCPUs together, and joins them.
    pub fn stop(&mut self) {
        self.0.iter().for_each(VcpuThread::stop);
        self.0.clear();
    }
}

/// Reads the states of paused vCPUs. See [`VcpuThreads::state_readers`].
#[derive(Clone)]
pub struct StateReaders(Vec<StateReader>);

impl StateReaders {
    /// The states of all vCPUs, by index, each with these model-specific registers. Each is read on its own thread.
    ///
    /// # Errors
    /// KVM can't read a part of one, or one isn't paused or has ended.
    pub fn read(&self, registers: &[u32]) -> Result<Vec<VcpuState>, Error> {
        let registers: Arc<[u32]> = registers.into();
        let pending: Vec<PendingState> = self.0.iter().map(|reader| reader.begin(&registers)).collect();
        pending.into_iter().map(PendingState::wait).collect()
    }
}

impl std::fmt::Debug for StateReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StateReaders").field(&self.0.len()).finish()
    }
}

impl<S> std::fmt::Debug for VcpuThreads<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
