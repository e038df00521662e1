//! All vCPUs of a machine together.

use vmm_vcpu::VcpuThreads;

use crate::handler::GuestEnd;

/// The vCPU threads.
pub(crate) type Vcpus = VcpuThreads<GuestEnd>;
