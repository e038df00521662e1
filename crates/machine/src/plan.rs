//! The whole machine, decided before any of it exists.

use std::fmt;
use std::ops::Range;

use vmm_arch::layout;
use vmm_arch::topology::Topology;
use vmm_config::{AnnounceVirtio, Config, Cpus, Expect, Serial, printable};
use vmm_memory::Backing;
use vmm_virtio::HostEnd;

use crate::platform::{self, FeaturePolicy, FirmwareTables, GuestPlan, LEGACY_SPACE};
use crate::ram::Ram;
use crate::{Affinity, Device, Error, Inputs, VirtioPlan, expect, legacy, virtio};

/// Every address, slot and interrupt of a machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// RAM, as guest-physical ranges; a range's place is its memory slot.
    pub ram: Vec<Range<u64>>,
    /// What is behind the RAM.
    pub backing: Backing,
    /// The vCPUs, and how the guest sees them grouped.
    pub topology: Topology,
    /// Where each vCPU's thread runs; none of them where the host may choose.
    pub affinity: Vec<Affinity>,
    /// Which CPU features the guest sees.
    pub features: FeaturePolicy,
    /// What lies where at the start, and the first instruction.
    pub boot: GuestPlan,
    /// Whether KVM emulates interrupt controllers, timer and local APICs.
    pub irqchip: bool,
    /// What a kernel is told of the machine by tables, as firmware would leave them.
    pub tables: FirmwareTables,
    /// The legacy devices, in ascending order of their registers' addresses.
    pub devices: Vec<Device>,
    /// The virtio devices, in the order of the config.
    pub virtio: Vec<VirtioPlan>,
    /// The host's side of COM1.
    pub serial: Serial,
    /// What the guest must be like when it halts.
    pub expect: Option<Expect>,
}

impl Plan {
    /// Reads the headers of the files and plans the machine around them.
    ///
    /// # Errors
    /// The kernel or image is none, or something that the config asks for doesn't fit.
    pub fn new(config: &Config, inputs: &mut Inputs) -> Result<Self, Error> {
        let ram = layout::ram_ranges(config.memory.size.bytes());
        let has_acpi = config.irqchip && GuestPlan::reads_firmware_tables(&config.boot);
        let mut devices = legacy::plan(&inputs.legacy, config.irqchip, has_acpi)?;
        let virtio = virtio::plan(&inputs.devices, &ram, config.announce_virtio, &devices)?;
        let (in_acpi, in_cmdline) = match config.announce_virtio {
            AnnounceVirtio::Acpi => (&virtio[..], &[][..]),
            AnnounceVirtio::Cmdline => (&[][..], &virtio[..]),
        };
        let boot = GuestPlan::new(&config.boot, inputs, &ram, &virtio::cmdline(in_cmdline))?;
        if let Some(expect) = &config.expect {
            check_expectations(expect, &ram)?;
        }
        let topology = topology(&config.cpus)?;
        let tables = has_acpi.then(|| FirmwareTables::new(topology, legacy::acpi(&devices)?, in_acpi));
        let tables = tables.transpose()?.unwrap_or_default();
        if has_acpi && !tables.serve_without_acpi() {
            virtio::check_without_mp_table(in_cmdline, topology.count())?;
        }
        devices.sort_by_key(|device| device.registers.start);
        Ok(Self {
            ram,
            backing: if config.memory.shared { Backing::Shared } else { Backing::Private },
            topology,
            affinity: config.cpus.affinity.iter().map(Affinity::new).collect(),
            features: platform::feature_policy(&config.cpus.features, topology)?,
            boot,
            irqchip: config.irqchip,
            tables,
            devices,
            virtio,
            serial: config.serial.clone(),
            expect: config.expect.clone(),
        })
    }

    /// One line for most machines; more for what the config says beyond a count.
    fn fmt_vcpus(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.topology.count();
        write!(f, "vcpus: {count}")?;
        if self.topology != Topology::one_socket(count as u16) {
            write!(f, ", {}", self.topology)?;
        }
        writeln!(f)?;
        if let Some(ids) = platform::shown_vcpu_ids(self.topology) {
            writeln!(f, "  {ids}")?;
        }
        for (index, affinity) in self.affinity.iter().enumerate() {
            writeln!(f, "  vcpu{index} on host CPUs {affinity}")?;
        }
        writeln!(f, "cpu features: {}", self.features)
    }

    /// Whether a console is on the monitor's standard input and output.
    pub fn is_on_stdio(&self) -> bool {
        let mut ends = self.virtio.iter().filter_map(|device| device.console.as_ref());
        self.serial == Serial::Stdio || ends.any(|end| *end == HostEnd::Stdio)
    }

    /// Bytes of guest memory.
    pub fn ram_len(&self) -> u64 {
        self.ram.iter().map(|range| range.end - range.start).sum()
    }
}

/// Memory of whole pages, in MiB if it has whole ones.
pub(crate) fn shown_len(len: u64) -> String {
    if len.is_multiple_of(1 << 20) { format!("{} MiB", len >> 20) } else { format!("{} KiB", len >> 10) }
}

/// The config's numbers, of which none is 0 and whose product is at most 4096.
fn topology(cpus: &Cpus) -> Result<Topology, Error> {
    let [threads, cores, sockets] =
        [cpus.threads_per_core, cpus.cores_per_socket, cpus.sockets].map(|number| number.get());
    Topology::new(threads, cores, sockets).ok_or(Error::Topology)
}

/// Whether all memory that is looked at in the end is there.
fn check_expectations(expect: &Expect, ram: &Ram) -> Result<(), Error> {
    for (index, expected) in expect.memory.iter().enumerate() {
        let gpa = expected.address.get();
        let end = gpa.checked_add(expect::len(expected.value) as u64);
        if !ram.iter().any(|range| range.start <= gpa && end.is_some_and(|end| end <= range.end)) {
            return Err(Error::ExpectedMemory { index, gpa });
        }
    }
    Ok(())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_vcpus(f)?;
        let backing = if self.backing == Backing::Shared { ", shared" } else { "" };
        writeln!(f, "memory: {}{backing}", shown_len(self.ram_len()))?;
        for (slot, range) in self.ram.iter().enumerate() {
            writeln!(f, "  slot {slot}  {:#011x}..{:#011x}", range.start, range.end)?;
        }
        write!(f, "{}", self.boot)?;
        write!(f, "{}", self.tables)?;
        writeln!(f, "devices:")?;
        for device in &self.devices {
            writeln!(f, "  {LEGACY_SPACE} {device}")?;
        }
        for device in &self.virtio {
            writeln!(f, "  mmio  {device}")?;
        }
        for (name, range) in platform::emulated_ranges(self.irqchip) {
            writeln!(f, "  mmio  {:#011x}      {name}", range.start)?;
        }
        writeln!(f, "serial: {}", printable(&self.serial.to_string()))
    }
}
