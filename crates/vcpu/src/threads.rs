//! The threads of all vCPUs of a machine together.

use vmm_kvm::VcpuReport;

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

    /// Takes all out of the guest, each with its last access complete, and returns when none runs. All are told before the first
    /// is waited for, so that it takes as long as the slowest, and a guest's processors stand at nearly the same moment.
    pub fn pause(&self) {
        let pausing: Vec<Pausing> = self.0.iter().map(VcpuThread::begin_pause).collect();
        pausing.into_iter().for_each(Pausing::wait);
    }

    /// Lets all run that are paused.
    pub fn resume(&self) {
        self.0.iter().for_each(VcpuThread::resume);
    }

    /// Ends the holds of all.
    pub fn wake(&self) {
        self.0.iter().for_each(VcpuThread::wake);
    }

    /// The state of each that has not ended, by its number.
    pub fn reports(&self) -> Vec<(u32, VcpuReport)> {
        let report = |vcpu: &VcpuThread<S>| Some((vcpu.index(), vcpu.report()?));
        self.0.iter().filter_map(report).collect()
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
