//! All vCPUs of a machine together.

use tracing::debug;
use vmm_vcpu::{End, Error, VcpuThread};

/// The vCPU threads.
#[derive(Debug, Default)]
pub(crate) struct Vcpus(Vec<VcpuThread>);

impl Vcpus {
    pub(crate) fn push(&mut self, vcpu: VcpuThread) {
        self.0.push(vcpu);
    }

    pub(crate) fn resume(&self) {
        self.0.iter().for_each(VcpuThread::resume);
    }

    /// Ends the holds of all.
    pub(crate) fn wake(&self) {
        self.0.iter().for_each(VcpuThread::wake);
    }

    /// Takes one that has ended out, with what it ended of.
    pub(crate) fn take_ended(&mut self) -> Option<Result<End, Error>> {
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
