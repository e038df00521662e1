//! Virtio devices: opened from the config, planned, and connected to the guest.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tracing::{info, warn};
use vmm_acpi::{Fragment, mmio_device};
use vmm_arch::layout;
use vmm_bus::{Bus, IrqLine};
use vmm_config::{Config, VirtioSection};
use vmm_kvm::{Vm, WriteAddress};
use vmm_memory::GuestRam;
use vmm_sys_util::eventfd::EventFd;
use vmm_virtio::{Counters, Entry, MMIO_LEN, MMIO_NOTIFY, MmioTransport, Parts, Setting, VirtioDevice};

use crate::Error;
use crate::error::Tried;

/// Faults of a device's driver that are told; a guest could make them without end.
const TOLD_FAULTS: u32 = 5;

/// A device whose files are open.
pub(crate) struct OpenDevice {
    id: String,
    kind: &'static str,
    device_id: u32,
    device: Box<dyn VirtioDevice>,
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Opens every virtio device of `config`, each of a kind in `kinds`.
pub(crate) fn open(config: &Config, kinds: &[Entry]) -> Result<Vec<OpenDevice>, Error> {
    let mut opened = Vec::new();
    for (index, device) in config.devices.iter().enumerate() {
        let vmm_config::Device::Virtio(section) = device else { continue };
        opened.push(open_one(index, section, config, kinds)?);
    }
    Ok(opened)
}

fn open_one(
    index: usize,
    section: &VirtioSection,
    config: &Config,
    kinds: &[Entry],
) -> Result<OpenDevice, Error> {
    let VirtioSection { kind: name, id, fields, directory } = section;
    let Some(kind) = kinds.iter().find(|kind| kind.name == name.as_str()) else {
        let known = kinds.iter().map(|kind| kind.name).chain(vmm_config::Device::KINDS);
        let hint = vmm_config::hint(name, &known.collect::<Vec<_>>());
        return Err(Error::UnknownDevice { index, name: name.clone(), hint });
    };
    if !config.irqchip {
        return Err(Error::VirtioWithoutIrqchip { index });
    }
    let id = id.as_ref().map_or(kind.name, |id| id.as_str()).to_owned();
    let setting = Setting { directory, vcpus: config.cpus.count.get().into(), id: &id };
    let opened = kind.open(fields.clone().into(), &setting);
    let device = opened.map_err(|source| Error::OpenDevice { index, source })?;
    Ok(OpenDevice { id, kind: kind.name, device_id: kind.id, device })
}

/// A virtio device's place in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioPlan {
    /// What the config calls it.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// Its registers, guest-physical.
    pub registers: Range<u64>,
    /// Its global system interrupt.
    pub gsi: u32,
    /// The most descriptors that each of its queues takes.
    pub queues: Vec<u16>,
}

impl fmt::Display for VirtioPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, registers, gsi, queues } = self;
        write!(f, "{:#011x}..{:#011x}  virtio {kind} \"{id}\", gsi {gsi}, ", registers.start, registers.end)?;
        match queues.as_slice() {
            [size] => write!(f, "a queue of {size}"),
            sizes => {
                write!(f, "queues of {}", sizes.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Gives each device its registers and its interrupt, in the order of the config.
pub(crate) fn plan(devices: &[OpenDevice]) -> Result<Vec<VirtioPlan>, Error> {
    let gsis = layout::VIRTIO_GSIS;
    if devices.len() > gsis.len() {
        return Err(Error::TooManyDevices { asked: devices.len(), max: gsis.len() });
    }
    let starts = (layout::VIRTIO_MMIO..).step_by(MMIO_LEN as usize);
    let places = devices.iter().zip(starts).zip(gsis);
    let place = |((device, start), gsi): ((&OpenDevice, u64), u32)| VirtioPlan {
        id: device.id.clone(),
        kind: device.kind,
        registers: start..start + MMIO_LEN,
        gsi,
        queues: device.device.queue_sizes(),
    };
    Ok(places.map(place).collect())
}

/// What the devices say of themselves in ACPI: where Linux's virtio_mmio driver looks for them.
pub(crate) fn acpi(plans: &[VirtioPlan]) -> Result<Vec<Fragment>, Error> {
    let fragment = |(index, plan): (usize, &VirtioPlan)| {
        let uid = index as u32;
        mmio_device(&format!("VR{uid:02X}"), "LNRO0005", uid, plan.registers.clone(), plan.gsi)
    };
    Ok(plans.iter().enumerate().map(fragment).collect::<Result<_, _>>()?)
}

/// What the kernel's command line starts with, so that Linux's virtio_mmio driver finds these devices without ACPI (Linux
/// Documentation/admin-guide/kernel-parameters.txt). In front, since what stands behind `--` is for the init.
pub(crate) fn cmdline(plans: &[VirtioPlan]) -> String {
    let word = |VirtioPlan { registers, gsi, .. }: &VirtioPlan| {
        format!("virtio_mmio.device={}@{:#x}:{gsi} ", registers.end - registers.start, registers.start)
    };
    plans.iter().map(word).collect()
}

/// The devices of a machine that exists.
#[derive(Debug)]
pub(crate) struct VirtioDevices {
    devices: Vec<Connected>,
    /// Written by any of them when there is news.
    pub(crate) news: Arc<EventFd>,
}

#[derive(Debug)]
struct Connected {
    id: String,
    transport: Arc<MmioTransport>,
    told: u32,
}

impl VirtioDevices {
    /// Gives each device its thread, puts its registers on the bus, lets the guest's notifications write its eventfds, and
    /// its interrupt go to the controllers.
    pub(crate) fn connect(
        plans: &[VirtioPlan],
        opened: Vec<OpenDevice>,
        vm: &Vm,
        mmio: &Bus,
        ram: &GuestRam,
        news: Arc<EventFd>,
    ) -> Result<Self, Error> {
        let mut devices = Vec::new();
        for (plan, OpenDevice { id, device_id, device, .. }) in plans.iter().zip(opened) {
            let line = IrqLine::new().tried("eventfd of an interrupt")?;
            vm.connect_irq(line.event(), plan.gsi)?;
            let parts = Parts { id: device_id, name: id.clone(), ram: ram.clone(), news: Arc::clone(&news) };
            let transport = MmioTransport::new(parts, device, line).tried("thread of a device")?;
            let transport = Arc::new(transport);
            let notify = WriteAddress::Mmio(plan.registers.start + MMIO_NOTIFY);
            for (queue, kick) in transport.control().kicks().iter().enumerate() {
                vm.connect_write(kick, notify, Some(queue as u32))?;
            }
            mmio.insert(plan.registers.start, MMIO_LEN, Arc::clone(&transport) as _)?;
            info!("virtio {} \"{id}\" at {:#x}", plan.kind, plan.registers.start);
            devices.push(Connected { id, transport, told: 0 });
        }
        Ok(Self { devices, news })
    }

    /// Tells what drivers did wrong, a few times for each device.
    pub(crate) fn tell_faults(&mut self) {
        for device in &mut self.devices {
            let Some(fault) = device.transport.control().take_fault() else { continue };
            if device.told < TOLD_FAULTS {
                device.told += 1;
                warn!("device \"{}\" needs a reset: its driver broke the rules: {fault}", device.id);
            }
        }
    }

    /// What each device counts, by its id.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.devices.iter().map(|device| (device.id.as_str(), &**device.transport.control().counters()))
    }
}
