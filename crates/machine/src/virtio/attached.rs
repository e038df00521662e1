//! The virtio devices of a built machine: connected to the guest, and running. `connect` connects them.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use vmm_config::ListedDevice;
use vmm_pci::RootBus;
use vmm_snapshot::{StateFile, StateWriter};
use vmm_virtio::{
    Control, Counters, DiskReport, HostEnd, MmioTransport, Notices, PciTransport, SaveError, Session,
    VirtioDevice,
};

use super::OpenDevice;
use super::file_memory::{self, MappedFile};
use crate::console::ConsolePort;
use crate::job::Progress;
use crate::parallel::in_parallel;
use crate::{DeviceLog, Error};

/// The kind of disks.
const BLOCK: &str = "block";

/// The virtio devices of a machine.
#[derive(Debug, Default)]
pub(crate) struct VirtioDevices {
    pub(super) devices: Vec<AttachedDevice>,
    /// Those that aren't connected yet; none once the machine is built.
    pub(super) unconnected: Vec<OpenDevice>,
    /// The bus of those that are PCI functions. The guest sees it as long as it is here.
    pub(super) pci: Option<Arc<RootBus>>,
}

/// A device with its thread, connected to a guest.
#[derive(Debug)]
pub(super) struct AttachedDevice {
    pub(super) transport: Transport,
    /// The fields of [`OpenDevice`], except the device itself.
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) slot: Option<u8>,
    pub(super) kind: &'static str,
    pub(super) device_id: u32,
    /// See [`VirtioDevice::may_lose`].
    pub(super) may_lose: bool,
    pub(super) memory: Option<MappedFile>,
    pub(super) console_end: Option<HostEnd>,
}

/// The device's registers. Another reference is on a bus, and one may be with a thread that saves the machine.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Mmio(Arc<MmioTransport>),
    Pci(Arc<PciTransport>),
}

impl Transport {
    fn control(&self) -> &Control {
        match self {
            Self::Mmio(transport) => transport.control(),
            Self::Pci(transport) => transport.control(),
        }
    }

    /// Adds the state of the device, which is at rest. Waits for its thread, which may flush files.
    pub(crate) fn save_to(&self, state: &mut StateWriter, instance: u32) -> Result<(), SaveError> {
        match self {
            Self::Mmio(transport) => state.add(instance, &transport.save()?),
            Self::Pci(transport) => state.add(instance, &transport.save()?),
        };
        Ok(())
    }

    /// The disk that the device is, after it was [saved](Self::save_to).
    pub(crate) fn disk(&self) -> Option<DiskReport> {
        self.control().disk()
    }

    /// The file of that disk, if the guest can write it.
    pub(crate) fn disk_file(&self) -> Result<File, SaveError> {
        self.control().disk_file()
    }

    /// Takes the state of a device that no driver has touched. It is then at rest.
    pub(crate) fn load_from(&self, state: &mut StateFile, instance: u32) -> Result<(), Error> {
        match self {
            Self::Mmio(transport) => transport.load(&state.take(instance)?)?,
            Self::Pci(transport) => transport.load(&state.take(instance)?)?,
        }
        Ok(())
    }

    /// Stops the device's thread. `None` if that has panicked, or if the registers are still on a bus.
    fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        match self {
            Self::Mmio(transport) => Arc::into_inner(transport)?.into_device(),
            Self::Pci(transport) => Arc::into_inner(transport)?.into_device(),
        }
    }
}

/// What a device reports when it has stopped.
#[derive(Debug)]
pub(crate) struct LastReport {
    pub(crate) id: String,
    /// Its last log lines.
    pub(crate) notices: Notices,
    /// What the guest may have lost.
    pub(crate) loss: Option<String>,
}

impl AttachedDevice {
    /// Stops the device's thread. `None` if that has panicked.
    fn into_open(self, reports: &Sender<LastReport>) -> Option<OpenDevice> {
        let Self { transport, index, id, slot, kind, device_id, may_lose, memory, console_end } = self;
        let mapping = memory.map(|memory| memory.mapping);
        // The buses have gone: the vCPUs' handlers have dropped those of ports and MMIO, and `into_devices` that of PCI.
        let (device, notices) = transport.into_device()?;
        // If nobody waits for the device any more, nobody logs it.
        let loss = if may_lose { device.loss() } else { None };
        let _ = reports.send(LastReport { id: id.clone(), notices, loss });
        Some(OpenDevice { index, id, slot, kind, device_id, device, mapping, console: None, console_end })
    }
}

impl VirtioDevices {
    /// Opened devices, which [`connect`](Self::connect) connects to a guest.
    pub(crate) fn opened(devices: Vec<OpenDevice>) -> Self {
        Self { unconnected: devices, ..Self::default() }
    }

    /// Takes the host's ends of the consoles out of devices that aren't connected yet.
    pub(crate) fn take_consoles(&mut self) -> Vec<ConsolePort> {
        self.unconnected.iter_mut().filter_map(|device| device.console.take()).collect()
    }

    /// Stops all devices in parallel, and as soon as one has stopped, sends its report and passes it to `take`; `None` for those
    /// whose threads have panicked. The vCPUs must have ended.
    pub(crate) fn into_devices<T: Send>(
        self,
        progress: &Progress,
        reports: &Sender<LastReport>,
        take: impl Fn(OpenDevice) -> T + Sync,
    ) -> Vec<Option<T>> {
        drop(self.pci);
        in_parallel(self.devices, |connected| {
            let stopped = {
                let _step = progress.begin(stopping(connected.kind, &connected.id));
                connected.into_open(reports)
            };
            stopped.map(&take)
        })
        .into_iter()
        .map(Option::flatten)
        .collect()
    }

    /// Stops all devices, and returns them with those that aren't connected, except those whose threads have panicked.
    pub(crate) fn into_open(mut self, progress: &Progress, reports: &Sender<LastReport>) -> Vec<OpenDevice> {
        let unconnected = std::mem::take(&mut self.unconnected);
        let stopped = self.into_devices(progress, reports, |device| device);
        stopped.into_iter().flatten().chain(unconnected).collect()
    }

    /// Whether there are devices on PCI, and no driver has found any.
    pub(crate) fn are_undiscovered_on_pci(&self) -> bool {
        self.pci.is_some() && !self.devices.iter().any(|device| device.transport.control().was_driven())
    }

    /// Starts to suspend all devices, which write `news` when they are at rest. The vCPUs must be paused.
    pub(crate) fn begin_suspend(&self) {
        self.devices.iter().for_each(|device| device.transport.control().begin_suspend());
    }

    /// Whether all devices are at rest.
    pub(crate) fn are_at_rest(&self) -> bool {
        self.devices.iter().all(|device| device.transport.control().is_at_rest())
    }

    /// Resumes all devices, which must be at rest.
    pub(crate) fn resume(&self) {
        self.devices.iter().for_each(|device| device.transport.control().resume());
    }

    /// The devices' registers, in the order of the config, and the bus of those on PCI.
    pub(crate) fn transports(&self) -> (Vec<Transport>, Option<Arc<RootBus>>) {
        (self.devices.iter().map(|device| device.transport.clone()).collect(), self.pci.clone())
    }

    /// Loads the devices and their bus, which no driver has touched. Afterwards they are at rest.
    ///
    /// # Errors
    /// A section is missing, or a device can't have its state.
    pub(crate) fn load(&self, state: &mut StateFile) -> Result<(), Error> {
        for (index, device) in (0..).zip(&self.devices) {
            device.transport.load_from(state, index)?;
        }
        // After its functions, whose registers say what they may decode.
        if let Some(bus) = &self.pci {
            bus.load(&state.take(0)?)?;
        }
        Ok(())
    }

    /// Raises each interrupt and notifies each queue once more, after a restore has [resumed](Self::resume) the devices.
    pub(crate) fn rouse(&self) {
        self.devices.iter().for_each(|device| device.transport.control().rouse());
    }

    /// Logs the devices' faults and log lines, within the limits of `log`.
    pub(crate) fn log_news(&self, log: &mut DeviceLog) {
        for AttachedDevice { id, transport, .. } in &self.devices {
            let control = transport.control();
            log.log(id, control.take_fault(), control.take_notices());
        }
    }

    /// Calls `act` on the thread of the device with this id, and returns the channel for its result; `news` is written when
    /// that has been sent. `None` if there is no such device.
    pub(crate) fn with_device<T: Send + 'static>(
        &self,
        id: &str,
        act: impl FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) -> T + Send + 'static,
    ) -> Option<Receiver<T>> {
        let device = self.devices.iter().find(|device| device.id == id)?;
        Some(device.transport.control().with_device(act))
    }

    /// An error if the guest has needed a page of a file that the host can't provide.
    pub(crate) fn check_memory(&self) -> Result<(), Error> {
        self.missing_page(MappedFile::is_incomplete).map_or(Ok(()), Err)
    }

    /// The error for a vCPU that has failed: one of the files may be why.
    pub(crate) fn explain(&self, error: vmm_vcpu::Error) -> Error {
        let missing = if file_memory::may_be_why(&error) { self.missing_page(|_| true) } else { None };
        missing.unwrap_or(Error::Vcpu(error))
    }

    /// The error for a page of one of these files; `None` if there are none.
    fn missing_page(&self, of: impl Fn(&MappedFile) -> bool) -> Option<Error> {
        let of = |device: &AttachedDevice| {
            let memory = device.memory.as_ref().filter(|memory| of(memory))?;
            Some(format!("device \"{}\": {}", device.id, memory.mapping.if_missing))
        };
        let files: Vec<String> = self.devices.iter().filter_map(of).collect();
        (!files.is_empty()).then(|| Error::MissingPage { files: files.join("; or ") })
    }

    /// The devices' ids, in the order of the config.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|device| device.id.as_str())
    }

    /// The ids of the devices of which the guest can lose what they have completed.
    pub(crate) fn ids_that_may_lose(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().filter(|device| device.may_lose).map(|device| device.id.as_str())
    }

    /// The devices' ids and types, in the order of the config.
    pub(crate) fn listed(&self) -> impl Iterator<Item = ListedDevice> {
        self.devices.iter().map(|device| ListedDevice {
            id: device.id.clone(),
            kind: device.kind.to_owned(),
            writable_disk: device.kind == BLOCK && device.may_lose,
        })
    }

    /// Each device's id and counters.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.devices.iter().map(|device| (device.id.as_str(), &**device.transport.control().counters()))
    }
}

/// The step of a job that stops this device.
pub(crate) fn stopping(kind: &str, id: &str) -> String {
    format!("stopping virtio {kind} \"{id}\"")
}
