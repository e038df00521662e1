//! A machine that exists: what of it ends with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::debug;
use vmm_bus::{Output, SystemEvent};
use vmm_config::{Config, Expect, MachineState, MachineStatus, Status};
use vmm_devices::PowerButton;
use vmm_kvm::{VcpuReport, Vm};
use vmm_memory::GuestRam;
use vmm_vcpu::{End, VcpuThreads};

use crate::console::Lines;
use crate::diagnostics::Watching;
use crate::inputs::{Files, Inputs};
use crate::job::Progress;
use crate::parts::Parts;
use crate::run_state::RunState;
use crate::virtio::VirtioDevices;
use crate::{Ending, Error, Kinds, Plan, expect, metrics};

/// A virtual machine, with the threads of its vCPUs. Dropping it stops them.
pub(crate) struct Machine {
    // In this order: the threads end before what they use.
    pub(crate) vcpus: VcpuThreads<SystemEvent>,
    pub(crate) virtio: VirtioDevices,
    /// What the next machine starts with, too.
    pub(crate) files: Files,
    /// What COM1 has printed.
    pub(crate) printed: Arc<Output>,
    pub(crate) load_time: Duration,
    pub(crate) watching: Watching,
    pub(crate) power_button: Option<Arc<dyn PowerButton>>,
    pub(crate) state: RunState,
    pub(crate) started: Instant,
    pub(crate) ram: GuestRam,
    pub(crate) expect: Option<Expect>,
    pub(crate) _vm: Vm,
}

impl Machine {
    /// Whether it isn't paused, nor about to be.
    pub(crate) fn runs(&self) -> bool {
        self.state == RunState::Running
    }

    /// How long it has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the guest listens to the power button.
    pub(crate) fn press_power_button(&self) -> bool {
        self.power_button.as_ref().is_some_and(|button| button.press())
    }

    /// What the devices have counted.
    pub(crate) fn counters(&self) -> Value {
        metrics::counters(self.uptime(), &self.virtio)
    }

    /// How it is.
    pub(crate) fn status(&self) -> Status {
        let state = match self.state {
            RunState::Configured => MachineState::Configured,
            RunState::Running => MachineState::Running,
            RunState::Pausing { .. } => MachineState::Pausing,
            RunState::Paused => MachineState::Paused,
        };
        let machine = MachineStatus {
            vcpus: self.vcpus.count() as u32,
            memory_bytes: self.ram.regions().map(|region| region.len).sum(),
            uptime_ms: self.uptime().as_millis() as u64,
            devices: self.virtio.listed().collect(),
        };
        Status { state, doing: None, machine: Some(machine) }
    }

    /// The machine's end, if a vCPU brought it.
    pub(crate) fn vcpu_ending(&mut self) -> Result<Option<Ending>, Error> {
        let mut ending = None;
        while let Some((index, end)) = self.vcpus.take_ended() {
            debug!("vcpu{index} has ended");
            ending = match end? {
                End::Asked(event) => Some(Ending::Guest(event)),
                End::Halted(report) => Some(self.halted(&report)),
                End::Crashed(crash) => Some(Ending::Crashed(crash)),
                // By our own order, never on its own.
                End::Stopped => ending,
            };
        }
        Ok(ending)
    }

    /// A guest that halts for ever must be as expected.
    fn halted(&self, report: &VcpuReport) -> Ending {
        let mismatches = match &self.expect {
            Some(expect) => expect::mismatches(expect, report, self.ram.memory()),
            None => Vec::new(),
        };
        if mismatches.is_empty() { Ending::Halted } else { Ending::Unexpected(mismatches) }
    }

    /// Ends the devices, each on a thread of its own, so that one whose storage never answers keeps none of the others from
    /// writing what they have. No vCPU is left.
    pub(crate) fn close(self, progress: &Progress) {
        drop(self.virtio.into_devices(progress, drop));
    }

    /// Takes it apart and builds the next one, of the same files and devices.
    pub(crate) fn rebuild(
        self,
        config: &Config,
        kinds: &Kinds<'_>,
        parts: Parts,
        progress: &Progress,
    ) -> Result<(Self, Lines), Error> {
        let Self { virtio, files, printed, vcpus, _vm, ram, .. } = self;
        drop((vcpus, _vm, ram));
        let devices = virtio.into_devices(progress, |device| device);
        let devices = devices.into_iter().flatten().collect();
        let mut inputs = Inputs::again(files, devices, config, kinds)?;
        let plan = {
            let _step = progress.begin("reading the kernel".to_owned());
            Plan::new(config, &mut inputs)?
        };
        Self::build(plan, inputs, Some(printed), parts, progress)
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}
