//! Restores a machine from a snapshot: everything but its plan and its devices' files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use vmm_bus::Output;
use vmm_devices::{DeviceState, SavedDevice};
use vmm_hostio::crash::MemoryFile;
use vmm_kvm::{ClockPolicy, Kvm, KvmVcpu, VcpuState, Vm, VmState};
use vmm_memory::{GuestRam, Loading};
use vmm_snapshot::{Manifest, Snapshot, SnapshotId, StateFile};

use crate::error::HostContext;
use crate::job::Progress;
use crate::plan_state::PlanState;
use crate::platform::{self, HostCpu};
use crate::saved_memory::read_memory;
use crate::virtio::VirtioDevices;
use crate::{Error, Plan};

/// A snapshot, and how a machine continues from it.
#[derive(Debug)]
pub struct Restore {
    snapshot: Snapshot,
    /// The snapshot's plan.
    plan: PlanState,
    /// The memory file's name, for messages.
    place: String,
    memory: Loading,
    clock: ClockPolicy,
}

impl Restore {
    /// Continues from `snapshot`, with memory that comes from its file in this way. `place` is that file in messages.
    ///
    /// # Errors
    /// The snapshot has no plan.
    pub fn new(
        mut snapshot: Snapshot,
        place: String,
        memory: Loading,
        clock: ClockPolicy,
    ) -> Result<Self, Error> {
        let plan = snapshot.state.take(0)?;
        Ok(Self { snapshot, plan, place, memory, clock })
    }

    /// The snapshot's id.
    pub fn id(&self) -> SnapshotId {
        self.snapshot.state.manifest().id
    }

    /// The config of the machine that was saved.
    pub fn config(&self) -> &Map<String, Value> {
        &self.snapshot.state.manifest().config
    }

    /// The ids of the disks whose contents are in the snapshot, and their files if that is in `directory`, as absolute paths.
    pub fn saved_disks(&self, directory: &Path) -> Vec<(String, PathBuf)> {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let disks = self.manifest().disks.iter();
        disks.filter_map(|disk| Some((disk.id.clone(), directory.join(disk.saved_as()?)))).collect()
    }

    /// Where relative paths in that config start.
    pub fn directory(&self) -> &Path {
        &self.plan.directory
    }

    pub(crate) fn plan(&self) -> &PlanState {
        &self.plan
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.snapshot.state.manifest()
    }

    /// Guest memory with the snapshot's contents.
    pub(crate) fn ram(&self, plan: &Plan, progress: &Progress) -> Result<GuestRam, Error> {
        let _step = progress.begin("reading the snapshot's memory".to_owned());
        let file = self.snapshot.memory.try_clone().context("dup")?;
        let layout = &self.snapshot.state.manifest().memory;
        Ok(read_memory(Arc::new(file), layout, self.memory, plan.backing)?)
    }

    /// Has the file named if the process dies of an access to `ram`, which is mapped from it.
    pub(crate) fn name_file(&self, ram: &GuestRam) -> Option<MemoryFile> {
        (self.memory == Loading::CopyOnWrite).then(|| MemoryFile::of(ram, &self.place)).flatten()
    }

    /// Creates the vCPUs, and sets their state and the VM's.
    pub(crate) fn vcpus(
        &mut self,
        plan: &Plan,
        host: (&Kvm, HostCpu),
        vm: &Vm,
    ) -> Result<Vec<KvmVcpu>, Error> {
        let state = &mut self.snapshot.state;
        let vcpus = platform::bare_vcpus(plan, vm)?;
        let states: Vec<VcpuState> =
            (0..plan.topology.count()).map(|index| state.take(index)).collect::<Result<_, _>>()?;
        platform::check_cpu(plan, host, &states)?;
        let (irqchip, pit) =
            if plan.irqchip { (Some(state.take(0)?), Some(state.take(0)?)) } else { (None, None) };
        let of_vm = VmState { clock: state.take(0)?, irqchip, pit };
        vm.restore(&vcpus, &states, &of_vm, self.clock).map_err(Error::RestoreVm)?;
        Ok(vcpus)
    }

    /// Sets the states of the devices, after those of the interrupt controllers, at which they raise their interrupts again. Nothing
    /// may be left of the snapshot then.
    pub(crate) fn devices(
        self,
        legacy: &[DeviceState],
        printed: &Output,
        virtio: &VirtioDevices,
    ) -> Result<(), Error> {
        let mut state: StateFile = self.snapshot.state;
        for (index, device) in (0..).zip(legacy) {
            if let DeviceState::Saved(device) = device {
                device.load_from(&mut state, index)?;
            }
        }
        SavedDevice::load_from(printed, &mut state, 0)?;
        virtio.load(&mut state)?;
        Ok(state.finish()?)
    }
}
