//! Saves a paused machine.
//!
//! The order matters (docs/design.md): the guest's clock is read first. The devices are next, whose last
//! interrupts are then in the interrupt controllers; the controllers before the vCPUs, to whose local APICs they deliver; and memory
//! last, to which all of these write. Nothing is written to a file before the whole state is known, so a device that can't be saved
//! costs nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_bus::Output;
use vmm_devices::{DeviceState, Stateful};
use vmm_kvm::{VcpuState, Vm};
use vmm_memory::GuestRam;
use vmm_pci::RootBus;
use vmm_snapshot::{
    DiskContents, FORMAT, Manifest, MemoryLayout, SavedDisk, SavedHost, SnapshotFiles, SnapshotId,
    StateWriter, Timestamp,
};
use vmm_vcpu::StateReaders;
use vmm_virtio::DiskReport;

use crate::about::About;
use crate::job::Progress;
use crate::open_host::OpenHost;
use crate::plan_state::{PlanState, VirtioPlace};
use crate::saved_disk::{CopiedDisk, copy_disk};
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
    /// There aren't two files, and more for disks.
    #[error("a snapshot needs two files, for state and memory, not {0}")]
    FileCount(usize),
    /// The contents of a device are wanted that doesn't exist.
    #[error("disks: the machine has no device {0:?}")]
    NoDisk(String),
    /// Two files are for one disk.
    #[error("disks: {0:?} is there twice")]
    DiskTwice(String),
    /// The contents of a disk can't be copied.
    #[error("the contents of the disk {id:?} can't be copied into the snapshot: {source}")]
    Copy {
        /// The disk.
        id: String,
        /// The host's error.
        source: std::io::Error,
    },
    /// The memory file that the machine was restored from has been shortened.
    #[error(
        "the memory file of the snapshot from which this machine was restored was shortened, so part of the guest's memory is lost: it must \
         stay as it is while a machine uses it, or restore with --memory copy"
    )]
    LostMemory,
    /// A file can't be written.
    #[error(transparent)]
    Files(#[from] vmm_snapshot::Error),
}

impl SaveError {
    /// Whether the machine is the reason, not the host.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Legacy(_) | Self::Virtio(_) | Self::NoDisk(_) | Self::DiskTwice(_))
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
    /// Writes the snapshot to the files for state and memory, and those for the contents of `disks`, and returns when the host's storage has
    /// it. The result has what the disks' files are still to be given, in the order of `disks`.
    pub(crate) fn write(
        self,
        files: Vec<OwnedFd>,
        disks: &[String],
        progress: &Progress,
    ) -> Result<Vec<CopiedDisk>, SaveError> {
        let (files, disk_files) = opened(files)?;
        let (state, tsc_khz) = self.state(progress)?;
        let sources = self.sources(disks, disk_files)?;
        let _step = progress.begin("writing the snapshot".to_owned());
        let regions = self.ram.regions().map(|region| region.gpa..region.gpa + region.len);
        let layout = MemoryLayout::of(regions)?;
        let copies = copied(sources, progress)?;
        let manifest = self.manifest((layout, self.disks(&copies)), &state, tsc_khz)?;
        let memory = files.start_memory(&manifest.memory)?;
        let is_whole = || if self.ram.has_lost_pages() { Err(SaveError::LostMemory) } else { Ok(()) };
        // Pages that are beyond its end by now would be saved as zeros.
        is_whole()?;
        write_memory(&self.ram, &manifest.memory, &memory, || progress.is_cancelled())?;
        is_whole()?;
        files.finish(state, &manifest)?;
        Ok(disks.iter().filter_map(|id| copies.get(id.as_str()).copied()).collect())
    }

    /// Everything but memory, and the frequency of the guest's TSC in kHz.
    fn state(&self, progress: &Progress) -> Result<(StateWriter, u32), SaveError> {
        let mut state = StateWriter::new();
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
        // Immediately before the TSCs, which go on as it does.
        state.add(0, &self.vm.clock()?);
        let vcpus = self.vcpus.read(&self.host.registers)?;
        (0..).zip(&vcpus).for_each(|(index, vcpu)| _ = state.add(index, vcpu));
        let tsc_khz = vcpus.first().and_then(|vcpu: &VcpuState| vcpu.tsc_khz).unwrap_or_default();
        Ok((state, tsc_khz))
    }

    /// The files of the disks that are to be copied, and the empty files for them, by the disks' ids.
    fn sources<'a>(
        &self,
        ids: &'a [String],
        files: Vec<File>,
    ) -> Result<BTreeMap<&'a str, (File, File)>, SaveError> {
        let mut sources = BTreeMap::new();
        for (id, to) in ids.iter().zip(files) {
            let index = self.plan.virtio.iter().position(|place| place.id == *id);
            let device = index.and_then(|index| self.virtio.get(index));
            let device = device.ok_or_else(|| SaveError::NoDisk(id.clone()))?;
            vmm_snapshot::check_new_file(&to, id)?;
            if sources.insert(id.as_str(), (device.disk_file()?, to)).is_some() {
                return Err(SaveError::DiskTwice(id.clone()));
            }
        }
        Ok(sources)
    }

    /// The disks, whose states have been saved, and of which some have been copied.
    fn disks(&self, copies: &BTreeMap<&str, CopiedDisk>) -> Vec<SavedDisk> {
        let disk = |(device, VirtioPlace { id, .. }): (&Transport, &VirtioPlace)| {
            let DiskReport { path, len, stamp } = device.disk()?;
            let (len, contents) = match copies.get(id.as_str()) {
                Some(copy) => (copy.len, DiskContents::Saved(format!("disks/{id}"))),
                None => (len, DiskContents::Stamp(stamp)),
            };
            Some(SavedDisk { id: id.clone(), path: path.to_string_lossy().into_owned(), len, contents })
        };
        self.virtio.iter().zip(&self.plan.virtio).filter_map(disk).collect()
    }

    fn manifest(
        &self,
        (memory, disks): (MemoryLayout, Vec<SavedDisk>),
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
            disks,
            config: config.clone(),
            sections: state.sections(),
        })
    }
}

/// Copies disks.
fn copied<'a>(
    sources: BTreeMap<&'a str, (File, File)>,
    progress: &Progress,
) -> Result<BTreeMap<&'a str, CopiedDisk>, SaveError> {
    let mut copies = BTreeMap::new();
    for (id, (from, to)) in sources {
        let _step = progress.begin(format!("copying the disk \"{id}\""));
        let copy = copy_disk(&from, &to, || progress.is_cancelled());
        copies.insert(id, copy.map_err(|source| SaveError::Copy { id: id.to_owned(), source })?);
    }
    Ok(copies)
}

/// The files of a request: those of state and memory, and those for disks.
fn opened(files: Vec<OwnedFd>) -> Result<(SnapshotFiles, Vec<File>), SaveError> {
    let count = files.len();
    let mut files = files.into_iter().map(File::from);
    let (Some(state), Some(memory)) = (files.next(), files.next()) else {
        return Err(SaveError::FileCount(count));
    };
    Ok((SnapshotFiles::of(state, memory)?, files.collect()))
}
