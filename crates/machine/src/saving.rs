//! Saves a paused machine.
//!
//! The order matters (docs/design.md): the guest's clock is read first. The devices are next, whose last
//! interrupts are then in the interrupt controllers; the controllers before the vCPUs, to whose local APICs they deliver; and memory
//! last, to which all of these write. Nothing is written to a file before the whole state is known, so a device that can't be saved
//! costs nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_bus::Output;
use vmm_devices::{DeviceState, Stateful};
use vmm_kvm::{VcpuState, Vm};
use vmm_memory::GuestRam;
use vmm_pci::RootBus;
use vmm_snapshot::{
    FORMAT, Manifest, MemoryLayout, SavedHost, SnapshotFiles, SnapshotId, StateWriter, Timestamp,
};
use vmm_vcpu::StateReaders;

use crate::about::About;
use crate::job::Progress;
use crate::open_host::OpenHost;
use crate::plan_state::PlanState;
use crate::saved_memory::write_memory;
use crate::virtio::Transport;

/// Why a machine wasn't saved. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// A legacy device has state that it can't tell.
    #[error("the {0} can't be saved; remove it from the config")]
    Legacy(String),
    /// A virtio device can't be saved.
    #[error(transparent)]
    Virtio(#[from] vmm_virtio::SaveError),
    /// A part of the VM can't be read.
    #[error(transparent)]
    Kvm(#[from] vmm_kvm::Error),
    /// A vCPU can't be read.
    #[error(transparent)]
    Vcpu(#[from] vmm_vcpu::Error),
    /// The host has no random numbers.
    #[error("the snapshot's id: {0}")]
    Id(std::io::Error),
    /// Guest memory has addresses that no snapshot can have.
    #[error(transparent)]
    Layout(#[from] vmm_snapshot::LayoutError),
    /// There aren't two files.
    #[error("a snapshot needs two files, for state and memory, not {0}")]
    FileCount(usize),
    /// A file can't be written.
    #[error(transparent)]
    Files(#[from] vmm_snapshot::Error),
}

impl SaveError {
    /// Whether the machine is the reason, not the host.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Legacy(_) | Self::Virtio(_))
    }
}

/// The parts of a paused machine, for the thread that saves them.
#[derive(Debug)]
pub(crate) struct Saving {
    pub(crate) vm: Arc<Vm>,
    pub(crate) vcpus: StateReaders,
    pub(crate) host: Arc<OpenHost>,
    /// The legacy devices, in the order of the plan.
    pub(crate) legacy: Vec<DeviceState>,
    pub(crate) printed: Arc<Output>,
    /// The virtio devices, in the order of the plan.
    pub(crate) virtio: Vec<Transport>,
    pub(crate) pci: Option<Arc<RootBus>>,
    pub(crate) ram: GuestRam,
    pub(crate) plan: PlanState,
    pub(crate) about: Arc<About>,
}

impl Saving {
    /// Writes the snapshot to the files for state and memory, and returns when the host's storage has it.
    pub(crate) fn write(self, files: Vec<OwnedFd>, progress: &Progress) -> Result<(), SaveError> {
        let files = opened(files)?;
        let (state, tsc_khz) = self.state(progress)?;
        let _step = progress.begin("writing the snapshot".to_owned());
        let regions = self.ram.regions().map(|region| region.gpa..region.gpa + region.len);
        let manifest = self.manifest(MemoryLayout::of(regions)?, &state, tsc_khz)?;
        let memory = files.start_memory(&manifest.memory)?;
        write_memory(&self.ram, &manifest.memory, &memory, || progress.is_cancelled())?;
        Ok(files.finish(state, &manifest)?)
    }

    /// Everything but memory, and the frequency of the guest's TSC in kHz.
    fn state(&self, progress: &Progress) -> Result<(StateWriter, u32), SaveError> {
        let mut state = StateWriter::new();
        state.add(0, &self.vm.clock()?);
        state.add(0, &self.plan);
        let _step = progress.begin("saving the devices".to_owned());
        for (index, device) in (0..).zip(&self.virtio) {
            device.save_to(&mut state, index)?;
        }
        if let Some(bus) = &self.pci {
            state.add(0, &bus.save());
        }
        for ((index, device), place) in (0..).zip(&self.legacy).zip(&self.plan.legacy) {
            match device {
                DeviceState::Saved(device) => device.save_to(&mut state, index),
                DeviceState::None => {}
                DeviceState::Unknown => return Err(SaveError::Legacy(place.name.clone())),
            }
        }
        state.add(0, &self.printed.save());
        if let Some(irqchip) = self.vm.irqchip()? {
            state.add(0, &irqchip);
        }
        if let Some(pit) = self.vm.pit()? {
            state.add(0, &pit);
        }
        let vcpus = self.vcpus.read(&self.host.registers)?;
        (0..).zip(&vcpus).for_each(|(index, vcpu)| _ = state.add(index, vcpu));
        let tsc_khz = vcpus.first().and_then(|vcpu: &VcpuState| vcpu.tsc_khz).unwrap_or_default();
        Ok((state, tsc_khz))
    }

    fn manifest(
        &self,
        memory: MemoryLayout,
        state: &StateWriter,
        tsc_khz: u32,
    ) -> Result<Manifest, SaveError> {
        let About { program, version, config, directory: _, parent } = &*self.about;
        Ok(Manifest {
            format: FORMAT,
            program: program.clone(),
            version: version.clone(),
            created: Timestamp::now(),
            id: SnapshotId::random().map_err(SaveError::Id)?,
            parent: *parent,
            host: SavedHost { tsc_khz, ..self.host.described.clone() },
            memory,
            disks: Vec::new(),
            config: config.clone(),
            sections: state.sections(),
        })
    }
}

/// The files of a request.
fn opened(files: Vec<OwnedFd>) -> Result<SnapshotFiles, SaveError> {
    match <[OwnedFd; 2]>::try_from(files) {
        Ok([state, memory]) => Ok(SnapshotFiles::of(File::from(state), File::from(memory))?),
        Err(files) => Err(SaveError::FileCount(files.len())),
    }
}
