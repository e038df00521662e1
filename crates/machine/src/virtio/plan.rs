//! Plans the virtio devices' registers and interrupts.

use std::fmt;
use std::ops::Range;

use vmm_acpi::{Fragment, mmio_device, motherboard, pci_root};
use vmm_arch::layout;
use vmm_config::{AnnounceVirtio, Boot, Transport, printable};
use vmm_pci::SLOTS;
use vmm_virtio::{HostEnd, MMIO_LEN, Mapping};

use super::{OpenDevice, pci};
use crate::ram::Ram;
use crate::{Device, Error};

/// A virtio device's addresses, interrupt and queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioPlan {
    /// Its id.
    pub id: String,
    /// Its type in the config.
    pub kind: &'static str,
    /// Its registers and interrupts.
    pub transport: TransportPlan,
    /// The maximum size of each of its queues, in descriptors.
    pub queues: Vec<u16>,
    /// The guest-physical addresses of a file that the guest sees as memory.
    pub memory: Option<Range<u64>>,
    /// A console's target.
    pub console: Option<HostEnd>,
}

/// The addresses and the interrupt of a virtio device on its transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportPlan {
    /// Registers at a fixed address, and a line of the interrupt controllers.
    Mmio {
        /// The guest-physical addresses of its registers.
        registers: Range<u64>,
        /// Its global system interrupt.
        gsi: u32,
    },
    /// A function on the PCI bus, whose interrupts are messages (MSI-X).
    Pci {
        /// Its device number on bus 0.
        slot: u8,
        /// The guest-physical addresses of its only BAR, until the guest moves it.
        bar: Range<u64>,
    },
}

impl fmt::Display for VirtioPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, transport, queues, memory, console } = self;
        match transport {
            TransportPlan::Mmio { registers, gsi } => write!(
                f,
                "mmio  {:#011x}..{:#011x}  virtio {kind} \"{id}\", gsi {gsi}, ",
                registers.start, registers.end
            )?,
            TransportPlan::Pci { slot, bar } => write!(
                f,
                "pci   {:#011x}..{:#011x}  virtio {kind} \"{id}\", slot {slot}, ",
                bar.start, bar.end
            )?,
        }
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
    (transport, announced): (Transport, AnnounceVirtio),
    legacy: &[Device],
) -> Result<Vec<VirtioPlan>, Error> {
    let places = match transport {
        Transport::Mmio => mmio(devices, announced, legacy)?,
        Transport::Pci => pci(devices)?,
    };
    let ram_end = ram.last().map_or(0, |range| range.end);
    let mut free = ram_end.max(layout::MMIO_GAP.end).next_multiple_of(MEMORY_ALIGNMENT);
    let mut memory = |mapping: &Mapping| {
        let start = free;
        // No file is longer than 2^63 - 1 bytes; KVM refuses ranges beyond the processor's physical addresses.
        let end = start.saturating_add(mapping.len);
        free = end.checked_next_multiple_of(MEMORY_ALIGNMENT).unwrap_or(end);
        start..end
    };
    let place = |(device, transport): (&OpenDevice, TransportPlan)| VirtioPlan {
        id: device.id.clone(),
        kind: device.kind,
        transport,
        queues: device.device.queue_sizes(),
        memory: device.mapping.as_ref().map(&mut memory),
        console: device.console_end.clone(),
    };
    Ok(devices.iter().zip(places).map(place).collect())
}

/// Assigns the registers and interrupts of devices by MMIO.
fn mmio(
    devices: &[OpenDevice],
    announced: AnnounceVirtio,
    legacy: &[Device],
) -> Result<Vec<TransportPlan>, Error> {
    if let Some(device) = devices.iter().find(|device| device.slot.is_some()) {
        return Err(Error::SlotWithoutPci { index: device.index });
    }
    let count = devices.len();
    let (gsis, with_acpi) = match announced {
        AnnounceVirtio::Acpi => (&layout::VIRTIO_GSIS[..], true),
        AnnounceVirtio::Cmdline => (&layout::VIRTIO_CMDLINE_IRQS[..], false),
    };
    let taken = legacy.iter().filter(|device| with_acpi || device.is_there_without_acpi());
    let taken: Vec<u32> = taken.filter_map(|device| device.gsi).collect();
    let gsis: Vec<u32> = gsis.iter().copied().filter(|gsi| !taken.contains(gsi)).collect();
    if count > gsis.len() {
        return Err(Error::TooManyDevices { requested: count, max: gsis.len() });
    }
    let starts = (layout::VIRTIO_MMIO..).step_by(MMIO_LEN as usize);
    let place = |(start, gsi)| TransportPlan::Mmio { registers: start..start + MMIO_LEN, gsi };
    Ok(starts.zip(gsis).take(count).map(place).collect())
}

/// Assigns the slots that the config sets, and the first free ones to the other devices.
fn pci(devices: &[OpenDevice]) -> Result<Vec<TransportPlan>, Error> {
    let max = SLOTS - 1;
    if devices.len() > max {
        return Err(Error::TooManySlots { requested: devices.len(), max });
    }
    let is_taken = |slot: &u8| devices.iter().any(|device| device.slot == Some(*slot));
    let mut free = (1..SLOTS as u8).filter(|slot| !is_taken(slot));
    let place = |slot| TransportPlan::Pci { slot, bar: pci::bar(slot) };
    Ok(devices.iter().filter_map(|device| device.slot.or_else(|| free.next())).map(place).collect())
}

/// Checks that devices on the command line need only interrupts of the 8259s, which are all that a kernel has without an MP
/// table. `cpus` is for the error.
pub(crate) fn check_without_mp_table(plans: &[VirtioPlan], cpus: u32) -> Result<(), Error> {
    let has_8259 = |plan: &&VirtioPlan| match plan.transport {
        TransportPlan::Mmio { gsi, .. } => gsi < layout::PIC_IRQS,
        TransportPlan::Pci { .. } => true,
    };
    match plans.iter().filter(has_8259).count() {
        max if max < plans.len() => Err(Error::NoMpTable { requested: plans.len(), max, cpus }),
        _ => Ok(()),
    }
}

/// The ACPI objects by which a kernel discovers the devices: one for each device by MMIO, or the PCI bus.
pub(crate) fn acpi(plans: &[VirtioPlan]) -> Result<Vec<Fragment>, Error> {
    let mut fragments = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        if let TransportPlan::Mmio { registers, gsi } = &plan.transport {
            let uid = index as u32;
            fragments.push(mmio_device(&format!("VR{uid:02X}"), "LNRO0005", uid, registers.clone(), *gsi)?);
        }
    }
    if has_pci(plans) {
        fragments.push(pci_root(layout::PCI_WINDOW)?);
        fragments.push(motherboard("MBRD", pci::ecam())?);
    }
    Ok(fragments)
}

/// Whether there is a PCI bus.
pub(crate) fn has_pci(plans: &[VirtioPlan]) -> bool {
    plans.iter().any(|plan| matches!(plan.transport, TransportPlan::Pci { .. }))
}

/// What a kernel is told of the devices outside of the ACPI tables.
#[derive(Debug, Default)]
pub(crate) struct KernelHints {
    /// A prefix for the command line by which Linux's virtio_mmio driver finds the devices without ACPI (Linux
    /// Documentation/admin-guide/kernel-parameters.txt). A prefix, because arguments after `--` are passed to init.
    pub(crate) cmdline: String,
    /// Addresses outside RAM that are reserved in the memory map. Linux before 6.8 accepts an ECAM only there.
    pub(crate) reserved: Option<Range<u64>>,
}

/// The hints about `devices`, of which `in_cmdline` are announced on the command line.
pub(crate) fn kernel_hints(
    devices: &[VirtioPlan],
    in_cmdline: &[VirtioPlan],
    boot: &Boot,
) -> Result<KernelHints, Error> {
    let has_pci = has_pci(devices);
    if let Boot::Linux(linux) = boot
        && has_pci
        && let Some(word) = pci_off(linux.cmdline.as_str())
    {
        return Err(Error::PciOff { word: word.to_owned() });
    }
    Ok(KernelHints { cmdline: cmdline(in_cmdline), reserved: has_pci.then(pci::ecam) })
}

/// The parameter that disables PCI in Linux. Arguments after `--` are passed to init.
fn pci_off(cmdline: &str) -> Option<&str> {
    let mut parameters = cmdline.split_ascii_whitespace().take_while(|word| *word != "--");
    parameters.find(|word| {
        let options = word.strip_prefix("pci=");
        options.is_some_and(|options| options.split(',').any(|option| option == "off"))
    })
}

fn cmdline(plans: &[VirtioPlan]) -> String {
    let parameter = |plan: &VirtioPlan| match &plan.transport {
        TransportPlan::Mmio { registers, gsi } => {
            format!("virtio_mmio.device={}@{:#x}:{gsi} ", registers.end - registers.start, registers.start)
        }
        TransportPlan::Pci { .. } => String::new(),
    };
    plans.iter().map(parameter).collect()
}
