//! All vCPUs of a machine together.

use tracing::debug;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{End, Error, VcpuThread};

use crate::handler::GuestEnd;

/// The vCPU threads.
#[derive(Debug, Default)]
pub(crate) struct Vcpus(Vec<VcpuThread<GuestEnd>>);

impl Vcpus {
    pub(crate) fn push(&mut self, vcpu: VcpuThread<GuestEnd>) {
        self.0.push(vcpu);
    }

    pub(crate) fn resume(&self) {
        self.0.iter().for_each(VcpuThread::resume);
    }

    /// How many have not ended.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Ends the holds of all.
    pub(crate) fn wake(&self) {
        self.0.iter().for_each(VcpuThread::wake);
    }

    /// Where each that has not ended is, by number.
    pub(crate) fn reports(&self) -> Vec<(u32, VcpuReport)> {
        let report = |vcpu: &VcpuThread<GuestEnd>| Some((vcpu.index(), vcpu.report()?));
        self.0.iter().filter_map(report).collect()
    }

    /// Takes one that has ended out, with what it ended of.
    pub(crate) fn take_ended(&mut self) -> Option<Result<End<GuestEnd>, Error>> {
        let at = self.0.iter().position(VcpuThread::has_ended)?;
        let vcpu = self.0.swap_remove(at);
        debug!("vcpu{} has ended", vcpu.index());
        Some(vcpu.join())
    }

    /// Stops and joins all that are left.
    pub(crate) fn stop(&mut self) {
        self.0.iter().for_each(VcpuThread::stop);
        self.0.clear();
    }
}
