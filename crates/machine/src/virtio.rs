//! Virtio devices: opens them, plans their addresses and interrupts, and connects them to the guest.

use std::fmt;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, ScopedJoinHandle};

use tracing::info;
use vmm_acpi::{Fragment, mmio_device};
use vmm_arch::layout;
use vmm_bus::EventFd;
use vmm_bus::{Bus, IrqLine};
use vmm_config::{AnnounceVirtio, Config, ListedDevice, VirtioSection, printable};
use vmm_kvm::{Vm, WriteAddress};
use vmm_memory::{Access, FileMemory, GuestRam};
use vmm_virtio::{
    Claim, ControlParams, Counters, DeviceError, HostEnd, MMIO_LEN, MMIO_NOTIFY, Mapping, MmioTransport,
    Notices, Session, Setting, VirtioDevice,
};

use crate::console::{ConsolePort, check_stdio};
use crate::error::HostContext;
use crate::job::Progress;
use crate::ram::Ram;
use crate::{Device, DeviceLog, Error, Kinds};

/// A device with its files open, not connected to a guest.
pub(crate) struct OpenDevice {
    /// Its index in the config's `devices`.
    index: usize,
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    device_id: u32,
    pub(crate) device: Box<dyn VirtioDevice>,
    /// A file that the guest sees as memory, if it has one.
    mapping: Option<Mapping>,
    /// The host's end of a console, until it is opened.
    console: Option<ConsolePort>,
    /// A console's target.
    console_end: Option<HostEnd>,
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Opens the virtio devices of `config`, except those that are `kept` from the previous machine.
pub(crate) fn open(
    config: &Config,
    kinds: &Kinds<'_>,
    mut kept: Vec<OpenDevice>,
    plan_only: bool,
) -> Result<Vec<OpenDevice>, Error> {
    let (mut opened, mut claims) = (Vec::new(), claimed(config, kinds)?);
    for (index, device) in config.devices.iter().enumerate() {
        let Some(section) = section_of(device, kinds) else { continue };
        let device = match kept.iter().position(|device| device.index == index) {
            Some(at) => kept.swap_remove(at),
            None => open_one(index, section, config, (kinds, plan_only))?,
        };
        claim_all(index, device.device.claims(), &mut claims)?;
        opened.push(device);
    }
    check_stdio(&config.serial, consoles(&opened))?;
    Ok(opened)
}

/// The claims that follow from the config alone, each with its device's index.
fn claimed(config: &Config, kinds: &Kinds<'_>) -> Result<Vec<(usize, Claim)>, Error> {
    let mut claims = Vec::new();
    for (index, device) in config.devices.iter().enumerate() {
        let Some(section) = section_of(device, kinds) else { continue };
        let kind = kinds.virtio().find(|kind| kind.name == section.kind);
        let by_fields = kind.map(|kind| kind.claims(&section.fields.clone().into()));
        claim_all(index, by_fields.unwrap_or_default(), &mut claims)?;
    }
    Ok(claims)
}

/// The config of a virtio device; `None` if `device` is a legacy device.
fn section_of<'a>(device: &'a vmm_config::Device, kinds: &Kinds<'_>) -> Option<&'a VirtioSection> {
    match device {
        vmm_config::Device::Virtio(section) if kinds.listed_legacy(&section.kind).is_none() => Some(section),
        _ => None,
    }
}

/// Adds the claims of the device at `index`. Fails if another device has claimed the same.
fn claim_all(index: usize, claimed: Vec<Claim>, claims: &mut Vec<(usize, Claim)>) -> Result<(), Error> {
    for claim in claimed {
        if let Some((by, first)) = claims.iter().find(|(_, other)| other.excludes(&claim)) {
            let (claim, first) = (Box::new(claim), Box::new(first.clone()));
            return Err(Error::ClaimedTwice { index, by: *by, claim, first });
        }
        claims.push((index, claim));
    }
    Ok(())
}

/// The host's ends of the consoles among the devices.
pub(crate) fn consoles(devices: &[OpenDevice]) -> impl Iterator<Item = &ConsolePort> {
    devices.iter().filter_map(|device| device.console.as_ref())
}

/// Takes the host's ends of the consoles out of the devices.
pub(crate) fn take_consoles(devices: &mut [OpenDevice]) -> Vec<ConsolePort> {
    devices.iter_mut().filter_map(|device| device.console.take()).collect()
}

fn open_one(
    index: usize,
    section: &VirtioSection,
    config: &Config,
    (kinds, plan_only): (&Kinds<'_>, bool),
) -> Result<OpenDevice, Error> {
    let VirtioSection { kind: name, id, fields, directory } = section;
    let Some(kind) = kinds.virtio().find(|kind| kind.name == name.as_str()) else {
        return Err(kinds.unknown(index, name));
    };
    if !config.irqchip {
        return Err(Error::VirtioWithoutIrqchip { index });
    }
    if fields.contains_key("port") {
        let source = DeviceError::config("port", "unknown field, a virtio device has no port");
        return Err(Error::OpenDevice { index, source });
    }
    let id = id.as_ref().map_or(kind.name, |id| id.as_str()).to_owned();
    let setting = Setting { directory, vcpus: config.cpus.count.get().into(), id: &id, plan_only };
    let opened = kind.open(fields.clone().into(), &setting);
    let mut device = opened.map_err(|source| Error::OpenDevice { index, source })?;
    let mapping = device.mapping();
    let console = device.port().map(|port| ConsolePort { index, id: id.clone(), port });
    let console_end = console.as_ref().map(|console| console.port.end().clone());
    let (kind, device_id) = (kind.name, kind.id);
    Ok(OpenDevice { index, id, kind, device_id, device, mapping, console, console_end })
}

/// A virtio device's addresses, interrupt and queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioPlan {
    /// Its id.
    pub id: String,
    /// Its type in the config.
    pub kind: &'static str,
    /// The guest-physical addresses of its registers.
    pub registers: Range<u64>,
    /// Its global system interrupt.
    pub gsi: u32,
    /// The maximum size of each of its queues, in descriptors.
    pub queues: Vec<u16>,
    /// The guest-physical addresses of a file that the guest sees as memory.
    pub memory: Option<Range<u64>>,
    /// A console's target.
    pub console: Option<HostEnd>,
}

impl fmt::Display for VirtioPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, registers, gsi, queues, memory, console } = self;
        write!(f, "{:#011x}..{:#011x}  virtio {kind} \"{id}\", gsi {gsi}, ", registers.start, registers.end)?;
        match queues.as_slice() {
            [size] => write!(f, "a queue of {size}")?,
            sizes => {
                let sizes: Vec<String> = sizes.iter().map(u16::to_string).collect();
                write!(f, "queues of {}", sizes.join(", "))?;
            }
        }
        if let Some(end) = console {
            write!(f, ", to {}", printable(&end.to_string()))?;
        }
        memory
            .as_ref()
            .map_or(Ok(()), |memory| write!(f, ", memory {:#011x}..{:#011x}", memory.start, memory.end))
    }
}

/// Alignment of files that the guest sees as memory: the largest page size that KVM maps.
const MEMORY_ALIGNMENT: u64 = 1 << 30;

/// Assigns registers and interrupts to the devices, in the order of the config, and places their files after `ram`. Interrupts of
/// `legacy` devices aren't used.
pub(crate) fn plan(
    devices: &[OpenDevice],
    ram: &Ram,
    announced: AnnounceVirtio,
    legacy: &[Device],
) -> Result<Vec<VirtioPlan>, Error> {
    let (gsis, with_acpi) = match announced {
        AnnounceVirtio::Acpi => (&layout::VIRTIO_GSIS[..], true),
        AnnounceVirtio::Cmdline => (&layout::VIRTIO_CMDLINE_IRQS[..], false),
    };
    let taken = legacy.iter().filter(|device| with_acpi || device.is_there_without_acpi());
    let taken: Vec<u32> = taken.filter_map(|device| device.gsi).collect();
    let gsis: Vec<u32> = gsis.iter().copied().filter(|gsi| !taken.contains(gsi)).collect();
    if devices.len() > gsis.len() {
        return Err(Error::TooManyDevices { requested: devices.len(), max: gsis.len() });
    }
    let starts = (layout::VIRTIO_MMIO..).step_by(MMIO_LEN as usize);
    let places = devices.iter().zip(starts).zip(gsis);
    let ram_end = ram.last().map_or(0, |range| range.end);
    let mut free = ram_end.max(layout::MMIO_GAP.end).next_multiple_of(MEMORY_ALIGNMENT);
    let mut memory = |mapping: &Mapping| {
        let start = free;
        // No file is longer than 2^63 - 1 bytes; KVM refuses ranges beyond the processor's physical addresses.
        let end = start.saturating_add(mapping.len);
        free = end.checked_next_multiple_of(MEMORY_ALIGNMENT).unwrap_or(end);
        start..end
    };
    let place = |((device, start), gsi): ((&OpenDevice, u64), u32)| VirtioPlan {
        id: device.id.clone(),
        kind: device.kind,
        registers: start..start + MMIO_LEN,
        gsi,
        queues: device.device.queue_sizes(),
        memory: device.mapping.as_ref().map(&mut memory),
        console: device.console_end.clone(),
    };
    Ok(places.map(place).collect())
}

/// Checks that devices on the command line need only interrupts of the 8259s, which are all that a kernel has without an MP
/// table. `cpus` is for the error.
pub(crate) fn check_without_mp_table(plans: &[VirtioPlan], cpus: u32) -> Result<(), Error> {
    match plans.iter().filter(|plan| plan.gsi < layout::PIC_IRQS).count() {
        max if max < plans.len() => Err(Error::NoMpTable { requested: plans.len(), max, cpus }),
        _ => Ok(()),
    }
}

/// The devices' ACPI objects, in which Linux's virtio_mmio driver finds them.
pub(crate) fn acpi(plans: &[VirtioPlan]) -> Result<Vec<Fragment>, Error> {
    let fragment = |(index, plan): (usize, &VirtioPlan)| {
        let uid = index as u32;
        mmio_device(&format!("VR{uid:02X}"), "LNRO0005", uid, plan.registers.clone(), plan.gsi)
    };
    Ok(plans.iter().enumerate().map(fragment).collect::<Result<_, _>>()?)
}

/// A prefix for the kernel's command line by which Linux's virtio_mmio driver finds the devices without ACPI (Linux
/// Documentation/admin-guide/kernel-parameters.txt). A prefix, because arguments after `--` are passed to init.
pub(crate) fn cmdline(plans: &[VirtioPlan]) -> String {
    let parameter = |VirtioPlan { registers, gsi, .. }: &VirtioPlan| {
        format!("virtio_mmio.device={}@{:#x}:{gsi} ", registers.end - registers.start, registers.start)
    };
    plans.iter().map(parameter).collect()
}

/// The virtio devices of a built machine.
#[derive(Debug)]
pub(crate) struct VirtioDevices(Vec<AttachedDevice>);

#[derive(Debug)]
struct AttachedDevice {
    transport: Arc<MmioTransport>,
    /// The fields of [`OpenDevice`], except the device itself.
    index: usize,
    id: String,
    kind: &'static str,
    device_id: u32,
    mapping: Option<Mapping>,
    console_end: Option<HostEnd>,
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
        let Self { transport, index, id, kind, device_id, mapping, console_end } = self;
        // The other reference was on the bus, which the vCPUs' handlers have dropped.
        let (device, notices) = Arc::into_inner(transport)?.into_device()?;
        // If nobody waits for the device any more, nobody logs it.
        let _ = reports.send(LastReport { id: id.clone(), notices, loss: device.loss() });
        Some(OpenDevice { index, id, kind, device_id, device, mapping, console: None, console_end })
    }
}

impl VirtioDevices {
    /// Starts each device's thread, puts its registers on the bus, and connects its ioeventfds and its irqfd. A device writes
    /// `news` when it has a fault or log lines, has stopped, or has answered a request.
    pub(crate) fn connect(
        plans: &[VirtioPlan],
        opened: Vec<OpenDevice>,
        vm: &Vm,
        mmio: &Bus,
        ram: &GuestRam,
        news: Arc<EventFd>,
    ) -> Result<Self, Error> {
        let mut devices = Vec::new();
        for (plan, opened) in plans.iter().zip(opened) {
            let OpenDevice { index, id, kind, device_id, mut device, mapping, console: _, console_end } =
                opened;
            if let Some((mapping, memory)) = mapping.as_ref().zip(plan.memory.as_ref()) {
                map(mapping, memory, vm)?;
                device.mapped(memory.start);
            }
            let note = device.note();
            let line = IrqLine::new().context("eventfd of an interrupt")?;
            vm.connect_irq(line.event(), plan.gsi)?;
            let params =
                ControlParams { id: device_id, name: id.clone(), ram: ram.clone(), news: Arc::clone(&news) };
            let transport = MmioTransport::new(params, device, line).context("thread of a device")?;
            let transport = Arc::new(transport);
            let notify = WriteAddress::Mmio(plan.registers.start + MMIO_NOTIFY);
            for (queue, kick) in transport.control().kicks().iter().enumerate() {
                vm.connect_write(kick, notify, Some(queue as u32))?;
            }
            mmio.insert(plan.registers.clone(), Arc::clone(&transport))?;
            let note = note.map(|note| format!(", {note}")).unwrap_or_default();
            info!("virtio {} \"{id}\" at {:#x}{note}", plan.kind, plan.registers.start);
            devices.push(AttachedDevice { transport, index, id, kind, device_id, mapping, console_end });
        }
        Ok(Self(devices))
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
        let stopping: Vec<_> = self.0.into_iter().map(|connected| Mutex::new(Some(connected))).collect();
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

    /// Starts to suspend all devices, which write `news` when they are at rest. The vCPUs must be paused.
    pub(crate) fn begin_suspend(&self) {
        self.0.iter().for_each(|device| device.transport.control().begin_suspend());
    }

    /// Whether all devices are at rest.
    pub(crate) fn are_at_rest(&self) -> bool {
        self.0.iter().all(|device| device.transport.control().is_at_rest())
    }

    /// Resumes all devices, which must be at rest.
    pub(crate) fn resume(&self) {
        self.0.iter().for_each(|device| device.transport.control().resume());
    }

    /// Logs the devices' faults and log lines, within the limits of `log`.
    pub(crate) fn log_news(&self, log: &mut DeviceLog) {
        for AttachedDevice { id, transport, .. } in &self.0 {
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
        let device = self.0.iter().find(|device| device.id == id)?;
        Some(device.transport.control().with_device(act))
    }

    /// The devices' ids, in the order of the config.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|device| device.id.as_str())
    }

    /// The devices' ids and types, in the order of the config.
    pub(crate) fn listed(&self) -> impl Iterator<Item = ListedDevice> {
        self.0.iter().map(|device| ListedDevice { id: device.id.clone(), kind: device.kind.to_owned() })
    }

    /// Each device's id and counters.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.0.iter().map(|device| (device.id.as_str(), &**device.transport.control().counters()))
    }
}

/// The step of a job that stops this device.
pub(crate) fn stopping(kind: &str, id: &str) -> String {
    format!("stopping virtio {kind} \"{id}\"")
}

/// Maps a file into the guest's memory.
fn map(mapping: &Mapping, at: &Range<u64>, vm: &Vm) -> Result<(), Error> {
    let access = if mapping.read_only { Access::Read } else { Access::ReadWrite };
    let file = mapping.file.try_clone().context("descriptor of a file that is memory")?;
    vm.add_file_memory(&FileMemory::new(file, mapping.len, at.start, access)?)?;
    Ok(())
}
