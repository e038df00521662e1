//! A built machine, with everything that ends with it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::debug;
use vmm_bus::{Output, SystemEvent};
use vmm_config::{Config, Expect, MachineState, MachineStatus, Status};
use vmm_devices::{DeviceState, PowerButton};
use vmm_hostio::crash::MemoryFile;
use vmm_kvm::{VcpuReport, Vm};
use vmm_memory::GuestRam;
use vmm_vcpu::{End, VcpuThreads};

use crate::about::About;
use crate::build_error::BuildError;
use crate::console::Lines;
use crate::delivery::{UndeliveredBytes, deliver_and_close};
use crate::diagnostics::Observer;
use crate::inputs::{Files, Inputs};
use crate::job::Progress;
use crate::open_host::OpenHost;
use crate::plan_state::PlanState;
use crate::run_state::RunState;
use crate::saving::Saving;
use crate::supervisor_handles::SupervisorHandles;
use crate::virtio::{LastReport, VirtioDevices};
use crate::{Ending, Error, Kinds, Plan, expect, metrics};

/// A virtual machine, with the threads of its vCPUs. Dropping it stops them.
pub(crate) struct Machine {
    // Fields drop in this order: threads end before what they use.
    pub(crate) vcpus: VcpuThreads<SystemEvent>,
    pub(crate) virtio: VirtioDevices,
    /// Reused by the next machine after a reset.
    pub(crate) files: Files,
    /// COM1's output queue.
    pub(crate) printed: Arc<Output>,
    pub(crate) load_time: Duration,
    pub(crate) observer: Observer,
    pub(crate) power_button: Option<Arc<dyn PowerButton>>,
    pub(crate) state: RunState,
    pub(crate) started: Instant,
    /// Names the file that `ram` is mapped from if that fails; before it, so that it ends first.
    pub(crate) _memory_file: Option<MemoryFile>,
    pub(crate) ram: GuestRam,
    pub(crate) expect: Option<Expect>,
    pub(crate) vm: Arc<Vm>,
    /// What a snapshot contains of the legacy devices, in the order of the plan.
    pub(crate) legacy: Vec<DeviceState>,
    /// The plan, as a snapshot has it.
    pub(crate) plan: PlanState,
    pub(crate) about: Arc<About>,
    pub(crate) host: Arc<OpenHost>,
    /// It was restored, and hasn't been started since: devices are at rest that drivers were using.
    pub(crate) is_restored: bool,
}

impl Machine {
    /// Whether it is running: neither paused nor pausing.
    pub(crate) fn runs(&self) -> bool {
        self.state == RunState::Running
    }

    /// Time since the machine was built.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Presses the power button. Returns whether the guest has enabled the button's event.
    pub(crate) fn press_power_button(&self) -> bool {
        self.power_button.as_ref().is_some_and(|button| button.press())
    }

    /// The devices' counters, as JSON.
    pub(crate) fn counters(&self) -> Value {
        metrics::counters(self.uptime(), &self.virtio)
    }

    /// The machine's status, for a `status` command.
    pub(crate) fn status(&self) -> Status {
        let state = match self.state {
            RunState::Configured => MachineState::Configured,
            RunState::Running => MachineState::Running,
            RunState::Pausing { .. } => MachineState::Pausing,
            RunState::Paused => MachineState::Paused,
            RunState::Saving { .. } => MachineState::Saving,
        };
        let machine = MachineStatus {
            vcpus: self.vcpus.count() as u32,
            memory_bytes: self.ram.regions().map(|region| region.len).sum(),
            uptime_ms: self.uptime().as_millis() as u64,
            devices: self.virtio.listed().collect(),
        };
        Status { state, doing: None, machine: Some(machine) }
    }

    /// The parts of this machine, which is at rest, for the thread that saves them. It must not go on before they are dropped.
    pub(crate) fn saving(&self) -> Saving {
        let (virtio, pci) = self.virtio.transports();
        Saving {
            vm: Arc::clone(&self.vm),
            vcpus: self.vcpus.state_readers(),
            host: Arc::clone(&self.host),
            legacy: self.legacy.clone(),
            printed: Arc::clone(&self.printed),
            virtio,
            pci,
            ram: self.ram.clone(),
            plan: self.plan.clone(),
            about: Arc::clone(&self.about),
        }
    }

    /// Collects exited vCPU threads. Returns the machine's ending if one of them ended it.
    pub(crate) fn vcpu_ending(&mut self) -> Result<Option<Ending>, Error> {
        let mut ending = None;
        while let Some((index, end)) = self.vcpus.take_ended() {
            debug!("vcpu{index} has ended");
            ending = match end.map_err(|error| self.virtio.explain(error))? {
                End::Asked(event) => Some(Ending::Guest(event)),
                End::Halted(report) => Some(self.halted(&report)),
                End::Crashed(crash) => Some(Ending::Crashed(crash)),
                // Only at our request.
                End::Stopped => ending,
            };
        }
        Ok(ending)
    }

    /// The ending of a guest that has halted for good: compares it with the config's `expect`.
    fn halted(&self, report: &VcpuReport) -> Ending {
        let mismatches = match &self.expect {
            Some(expect) => expect::mismatches(expect, report, self.ram.memory()),
            None => Vec::new(),
        };
        if mismatches.is_empty() { Ending::Halted } else { Ending::Unexpected(mismatches) }
    }

    /// Stops the devices, each on its own thread, so that hung storage doesn't prevent the other devices from flushing, and
    /// delivers their last data. The vCPUs must have ended. Returns log lines about lost data.
    pub(crate) fn close(self, progress: &Progress, reports: &Sender<LastReport>) -> Vec<String> {
        let Self { virtio, vcpus, vm, ram, _memory_file, .. } = self;
        // The vCPUs of a machine that was never started refer to its devices.
        drop((vcpus, vm, _memory_file, ram));
        let closed = virtio.into_devices(progress, reports, |device| deliver_and_close(device, progress));
        closed.into_iter().flatten().flatten().collect()
    }

    /// Tears this machine down and builds the next one from the same files and devices.
    pub(crate) fn rebuild(
        self,
        config: &Config,
        kinds: &Kinds<'_>,
        handles: SupervisorHandles,
        (progress, reports): (&Progress, &Sender<LastReport>),
    ) -> Result<(Self, Lines), BuildError> {
        let Self { virtio, files, printed, vcpus, vm, ram, _memory_file, .. } = self;
        drop((vcpus, vm, _memory_file, ram));
        let mut inputs = Inputs::kept(files, virtio.into_open(progress, reports));
        // The next machine continues the delivery, or the supervisor if there is none. The steps are for a restart that hangs.
        let undelivered = inputs.devices.iter_mut().filter_map(UndeliveredBytes::of);
        let _steps: Vec<_> = undelivered.map(|left| progress.begin(left.step())).collect();
        let plan = inputs.complete(config, kinds).and_then(|()| {
            let _step = progress.begin("reading the kernel".to_owned());
            Plan::new(config, &mut inputs)
        });
        match plan {
            Ok(plan) => Self::build(plan, (inputs, None), Some(printed), handles, progress),
            Err(error) => Err(BuildError { error, devices: inputs.devices }),
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}
