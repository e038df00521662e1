//! The plan of a machine: everything that is decided before it is built.

use std::fmt;
use std::ops::Range;

use vmm_arch::layout;
use vmm_arch::topology::Topology;
use vmm_config::{AnnounceVirtio, Config, Cpus, Expect, Serial, Transport, printable};
use vmm_memory::Backing;
use vmm_virtio::HostEnd;

use crate::platform::{self, FeaturePolicy, FirmwareTables, GuestPlan, LEGACY_SPACE, PCI_REGISTERS};
use crate::ram::Ram;
use crate::{Affinity, Device, Error, Inputs, VirtioPlan, expect, legacy, virtio};

/// Every address, slot and interrupt of a machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// RAM, as guest-physical ranges; a range's index is its memory slot.
    pub ram: Vec<Range<u64>>,
    /// How the RAM is mapped on the host.
    pub backing: Backing,
    /// The vCPUs, and how they are grouped into sockets, cores and threads.
    pub topology: Topology,
    /// The host CPUs of each vCPU's thread; empty if the host's scheduler chooses.
    pub affinity: Vec<Affinity>,
    /// Which CPU features the guest sees.
    pub features: FeaturePolicy,
    /// What is loaded where, and the initial register state.
    pub boot: GuestPlan,
    /// Whether KVM emulates the interrupt controllers, the timer and the local APICs.
    pub irqchip: bool,
    /// The tables that firmware would leave for a kernel.
    pub tables: FirmwareTables,
    /// The legacy devices, by ascending register address.
    pub devices: Vec<Device>,
    /// The virtio devices, in the order of the config.
    pub virtio: Vec<VirtioPlan>,
    /// The host's side of COM1.
    pub serial: Serial,
    /// The state that the guest must have when it halts.
    pub expect: Option<Expect>,
}

impl Plan {
    /// Plans the machine of `config`. Reads the headers of the kernel or image from `inputs`.
    ///
    /// # Errors
    /// The kernel or image has no valid format, or something in the config doesn't fit.
    pub fn new(config: &Config, inputs: &mut Inputs) -> Result<Self, Error> {
        let ram = layout::ram_ranges(config.memory.size.bytes());
        let has_acpi = config.irqchip && GuestPlan::reads_firmware_tables(&config.boot);
        let has_pci = config.transport == Transport::Pci && !inputs.devices.is_empty();
        let mut devices = legacy::plan(&inputs.legacy, config.irqchip, has_acpi, has_pci)?;
        let virtio =
            virtio::plan(&inputs.devices, &ram, (config.transport, config.announce_virtio), &devices)?;
        let (in_acpi, in_cmdline) = match config.announce_virtio {
            AnnounceVirtio::Acpi => (&virtio[..], &[][..]),
            AnnounceVirtio::Cmdline => (&[][..], &virtio[..]),
        };
        let hints = virtio::kernel_hints(&virtio, in_cmdline, &config.boot)?;
        let boot = GuestPlan::new(&config.boot, inputs, &ram, &hints)?;
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

    /// One line for most machines; more if the config sets a topology, affinity or features.
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

    /// Whether a console uses the monitor's standard input and output.
    pub fn is_on_stdio(&self) -> bool {
        let mut ends = self.virtio.iter().filter_map(|device| device.console.as_ref());
        self.serial == Serial::Stdio || ends.any(|end| *end == HostEnd::Stdio)
    }

    /// The guest's RAM, in bytes.
    pub fn ram_len(&self) -> u64 {
        self.ram.iter().map(|range| range.end - range.start).sum()
    }
}

/// A length of whole pages, in MiB where that is exact, else in KiB.
pub(crate) fn shown_len(len: u64) -> String {
    if len.is_multiple_of(1 << 20) { format!("{} MiB", len >> 20) } else { format!("{} KiB", len >> 10) }
}

/// The topology of `cpus`. The config has checked that no number is 0 and that the product is at most 4096.
pub(crate) fn topology(cpus: &Cpus) -> Result<Topology, Error> {
    let [threads, cores, sockets] =
        [cpus.threads_per_core, cpus.cores_per_socket, cpus.sockets].map(|number| number.get());
    Topology::new(threads, cores, sockets).ok_or(Error::Topology)
}

/// Checks that all memory that `expect` reads is RAM.
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
        if virtio::has_pci(&self.virtio) {
            let (name, registers) = PCI_REGISTERS;
            writeln!(f, "  {LEGACY_SPACE} {:#05x}..{:#05x}  {name}", registers.start, registers.end)?;
            let ecam = virtio::ecam();
            writeln!(f, "  mmio  {:#011x}..{:#011x}  {name}", ecam.start, ecam.end)?;
        }
        for device in &self.virtio {
            writeln!(f, "  {device}")?;
        }
        for (name, range) in platform::emulated_ranges(self.irqchip) {
            writeln!(f, "  mmio  {:#011x}      {name}", range.start)?;
        }
        writeln!(f, "serial: {}", printable(&self.serial.to_string()))
    }
}
