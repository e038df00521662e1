//! The whole machine, decided before any of it exists.

use std::fmt;
use std::ops::Range;

use vmm_arch::{boot, layout};
use vmm_boot::{BootPlan, BootSpec, KernelImage};
use vmm_config::{Config, Protocol, Serial};

use crate::{Error, Inputs};

/// Every address, slot and interrupt of a machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// RAM, as guest-physical ranges; a range's place is its memory slot.
    pub ram: Vec<Range<u64>>,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// What lies where at the start, and the first instruction.
    pub boot: BootPlan,
    /// The devices of ours on the port bus, in ascending order of port.
    pub devices: Vec<Device>,
    /// The host's side of COM1.
    pub serial: Serial,
}

/// A device's place on the port bus and at the interrupt controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// Its ports.
    pub ports: Range<u64>,
    /// Its global system interrupt.
    pub gsi: Option<u32>,
}

/// The legacy devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The reset line.
    I8042,
    /// The real-time clock.
    Rtc,
    /// The serial port.
    Uart,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I8042 => "i8042 reset",
            Self::Rtc => "real-time clock",
            Self::Uart => "uart com1",
        })
    }
}

impl Plan {
    /// Reads the headers of the kernel and plans the machine around it.
    ///
    /// # Errors
    /// The kernel is none, or it, the initrd or the command line doesn't fit.
    pub fn new(config: &Config, inputs: &mut Inputs) -> Result<Self, Error> {
        let image = inputs.kernel.inspect()?;
        let initrd_len = inputs.initrd.as_ref().map(vmm_boot::SourceFile::len);
        Self::pure(config, &image, initrd_len)
    }

    /// The plan proper: no file, no system call.
    fn pure(config: &Config, image: &KernelImage, initrd_len: Option<u64>) -> Result<Self, Error> {
        let ram = layout::ram_ranges(config.memory.size.bytes());
        let boot = BootPlan::new(&BootSpec {
            image,
            protocol: protocol(config.boot.protocol),
            initrd_len,
            cmdline: config.boot.cmdline.as_str(),
            ram: &ram,
        })?;
        let devices = vec![
            Device { kind: DeviceKind::I8042, ports: layout::I8042, gsi: None },
            Device { kind: DeviceKind::Rtc, ports: layout::RTC, gsi: None },
            Device { kind: DeviceKind::Uart, ports: layout::COM1, gsi: Some(layout::COM1_IRQ) },
        ];
        Ok(Self { ram, vcpus: config.cpus.count.get().into(), boot, devices, serial: config.serial.clone() })
    }

    /// Bytes of guest memory.
    pub fn ram_len(&self) -> u64 {
        self.ram.iter().map(|range| range.end - range.start).sum()
    }
}

/// The config's word for a protocol, as the platform's; `None` leaves it to the kernel file.
fn protocol(asked: Protocol) -> Option<boot::Protocol> {
    match asked {
        Protocol::Auto => None,
        Protocol::Linux64 => Some(boot::Protocol::Linux64),
        Protocol::Linux32 => Some(boot::Protocol::Linux32),
        Protocol::Pvh => Some(boot::Protocol::Pvh),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vcpus: {}", self.vcpus)?;
        writeln!(f, "memory: {} MiB", self.ram_len() >> 20)?;
        for (slot, range) in self.ram.iter().enumerate() {
            writeln!(f, "  slot {slot}  {:#011x}..{:#011x}", range.start, range.end)?;
        }
        write!(f, "{}", self.boot)?;
        writeln!(f, "devices:")?;
        let kvm = [
            ("KVM identity map", layout::KVM_IDENTITY_MAP),
            ("KVM task state segment", layout::KVM_TSS),
            ("IO-APIC (KVM)", layout::IOAPIC),
            ("local APICs (KVM)", layout::LOCAL_APIC),
        ];
        for Device { kind, ports, gsi } in &self.devices {
            write!(f, "  ports {:#05x}..{:#05x}  {kind}", ports.start, ports.end)?;
            writeln!(f, "{}", gsi.map(|gsi| format!(", gsi {gsi}")).unwrap_or_default())?;
        }
        for (name, gpa) in kvm {
            writeln!(f, "  mmio  {gpa:#011x}      {name}")?;
        }
        writeln!(f, "serial: {}", self.serial)
    }
}
