//! The virtio devices of a built machine: connected to the guest, and running.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, ScopedJoinHandle};

use tracing::info;
use vmm_arch::layout;
use vmm_bus::{Bus, EventFd, IrqLine};
use vmm_config::ListedDevice;
use vmm_kvm::{Vm, WriteAddress};
use vmm_memory::GuestRam;
use vmm_pci::RootBus;
use vmm_virtio::{
    Control, ControlParams, Counters, HostEnd, MMIO_NOTIFY, MmioTransport, Notices, PciTransport, Session,
    VirtioDevice,
};

use super::file_memory::{self, MappedFile};
use super::messages::LocalApics;
use super::{OpenDevice, TransportPlan, VirtioPlan, pci};
use crate::error::HostContext;
use crate::job::Progress;
use crate::platform::Buses;
use crate::{DeviceLog, Error};

/// The virtio devices of a built machine.
#[derive(Debug)]
pub(crate) struct VirtioDevices {
    devices: Vec<AttachedDevice>,
    /// The bus of those that are PCI functions. The guest sees it as long as it is here.
    pci: Option<Arc<RootBus>>,
}

#[derive(Debug)]
struct AttachedDevice {
    transport: Transport,
    /// The fields of [`OpenDevice`], except the device itself.
    index: usize,
    id: String,
    slot: Option<u8>,
    kind: &'static str,
    device_id: u32,
    /// See [`VirtioDevice::may_lose`].
    may_lose: bool,
    memory: Option<MappedFile>,
    console_end: Option<HostEnd>,
}

/// The device's registers. The other reference is on a bus.
#[derive(Debug)]
enum Transport {
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
    /// Starts each device's thread, and connects its registers, its ioeventfds and its interrupts to the guest. A device writes
    /// `news` when it has a fault or log lines, has stopped, or has answered a request.
    pub(crate) fn connect(
        plans: &[VirtioPlan],
        opened: Vec<OpenDevice>,
        vm: &Arc<Vm>,
        buses: &Buses,
        ram: &GuestRam,
        news: Arc<EventFd>,
    ) -> Result<Self, Error> {
        let apics = LocalApics::new(Arc::clone(vm));
        let (mut devices, mut functions) = (Vec::new(), Vec::new());
        for (plan, opened) in plans.iter().zip(opened) {
            let OpenDevice { index, id, slot, kind, device_id, mut device, mapping, console: _, console_end } =
                opened;
            let memory = match mapping.zip(plan.memory.as_ref()) {
                Some((mapping, at)) => {
                    device.mapped(at.start);
                    Some(MappedFile::new(mapping, at, vm, buses.mmio(), Arc::clone(&news))?)
                }
                None => None,
            };
            let may_lose = device.may_lose();
            let note = device.note().map(|note| format!(", {note}")).unwrap_or_default();
            let params =
                ControlParams { id: device_id, name: id.clone(), ram: ram.clone(), news: Arc::clone(&news) };
            let transport = match &plan.transport {
                TransportPlan::Mmio { registers, gsi } => {
                    info!("virtio {kind} \"{id}\" at {:#x}{note}", registers.start);
                    Transport::Mmio(connect_mmio(params, device, (registers, *gsi), vm, buses.mmio())?)
                }
                TransportPlan::Pci { slot: at, bar } => {
                    info!("virtio {kind} \"{id}\" in PCI slot {at}{note}");
                    let sender = Box::new(apics.clone());
                    let function = PciTransport::new(params, device, sender, bar.start, layout::PCI_WINDOW);
                    let function = function.map(Arc::new).context("thread of a device")?;
                    functions.push((*at, Arc::clone(&function)));
                    Transport::Pci(function)
                }
            };
            devices.push(AttachedDevice {
                transport,
                index,
                id,
                slot,
                kind,
                device_id,
                may_lose,
                memory,
                console_end,
            });
        }
        let pci = if functions.is_empty() { None } else { Some(pci::connect(&functions, vm, buses)?) };
        Ok(Self { devices, pci })
    }

    /// Stops all devices in parallel, and as soon as one has stopped, sends its report and passes it to `take`; `None` for those
    /// whose threads have panicked. The vCPUs must have ended.
    pub(crate) fn into_devices<T: Send>(
        self,
        progress: &Progress,
        reports: &Sender<LastReport>,
        take: impl Fn(OpenDevice) -> T + Sync,
    ) -> Vec<Option<T>> {
        let take = |connected: AttachedDevice| {
            let stopped = {
                let _step = progress.begin(stopping(connected.kind, &connected.id));
                connected.into_open(reports)
            };
            stopped.map(&take)
        };
        drop(self.pci);
        let stopping: Vec<_> =
            self.devices.into_iter().map(|connected| Mutex::new(Some(connected))).collect();
        let take = |kept: &Mutex<Option<AttachedDevice>>| {
            let connected = kept.lock().ok().and_then(|mut kept| kept.take());
            connected.and_then(&take)
        };
        thread::scope(|scope| {
            let take = &take;
            let start =
                |kept| thread::Builder::new().spawn_scoped(scope, move || take(kept)).map_err(|_| kept);
            let started: Vec<_> = stopping.iter().map(start).collect();
            let result = |started: Result<ScopedJoinHandle<'_, _>, _>| match started {
                Ok(thread) => thread.join().ok().flatten(),
                // The host can't create a thread: stop it on this one.
                Err(kept) => take(kept),
            };
            started.into_iter().map(result).collect()
        })
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
        self.devices.iter().map(|device| ListedDevice { id: device.id.clone(), kind: device.kind.to_owned() })
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

/// Starts the thread of `device`, and connects it to the guest by MMIO.
fn connect_mmio(
    params: ControlParams,
    device: Box<dyn VirtioDevice>,
    (registers, gsi): (&Range<u64>, u32),
    vm: &Vm,
    mmio: &Bus,
) -> Result<Arc<MmioTransport>, Error> {
    let line = IrqLine::new().context("eventfd of an interrupt")?;
    vm.connect_irq(line.event(), gsi)?;
    let transport = Arc::new(MmioTransport::new(params, device, line).context("thread of a device")?);
    let notify = WriteAddress::Mmio(registers.start + MMIO_NOTIFY);
    for (queue, kick) in transport.control().kicks().iter().enumerate() {
        vm.connect_write(kick, notify, Some(queue as u32))?;
    }
    mmio.insert(registers.clone(), Arc::clone(&transport))?;
    Ok(transport)
}
