//! Legacy devices: found in the table of kinds, planned, and put on the port bus. No kind is known here by its name.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use vmm_bus::{Bus, Output};
use vmm_config::Config;
use vmm_devices::{AcpiParts, LegacyEntry, Planned, PowerButton, Presence, SerialLine, Wiring};
use vmm_kvm::Vm;

use crate::error::Tried;
use crate::platform::EMULATED_PORTS;
use crate::{Error, Kinds};

/// The last port.
const LAST_PORT: u64 = 0xffff;

/// A device's place on the port bus and at the interrupt controllers.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is called: its kind's name, with its id if the config may give it one.
    pub name: String,
    /// Its ports.
    pub ports: Range<u64>,
    /// Its global system interrupt.
    pub gsi: Option<u32>,
    planned: Planned,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ports, gsi, .. } = self;
        write!(f, "{:#05x}..{:#05x}  {name}", ports.start, ports.end)?;
        gsi.map_or(Ok(()), |gsi| write!(f, ", gsi {gsi}"))
    }
}

impl Device {
    /// Whether kernels that don't read ACPI tables have this device, too.
    pub(crate) fn is_there_without_acpi(&self) -> bool {
        self.planned.presence != Presence::WithAcpi
    }
}

/// A device that a machine may have, as its kind and the config say.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its place in the config's list, if it is there.
    index: Option<usize>,
    name: String,
    planned: Planned,
}

/// Every device of the table that machines have without being asked, and then those that the config lists.
pub(crate) fn find(config: &Config, kinds: &Kinds<'_>) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for kind in kinds.legacy().filter(|kind| kind.listed_as().is_none()) {
        let planned = kind.plan(&serde_json::json!({}));
        let planned = planned
            .map_err(|error| defect(kind, format!("is in the config of no machine, but wants {error}")))?;
        found.push(Found { index: None, name: kind.name.to_owned(), planned });
    }
    for (index, device) in config.devices.iter().enumerate() {
        let (kind, fields) = device.kind_and_fields();
        let Some(kind) = kinds.listed_legacy(&kind) else {
            match device {
                // Opened as a virtio device, or refused there.
                vmm_config::Device::Virtio(_) => continue,
                _ => return Err(kinds.unknown(index, &kind)),
            }
        };
        let planned = kind.plan(&fields);
        let planned = planned.map_err(|error| Error::OpenDevice { index, source: error.into() })?;
        let name = match device.id() {
            Some(id) => format!("{} \"{id}\"", kind.name),
            None => kind.name.to_owned(),
        };
        found.push(Found { index: Some(index), name, planned });
    }
    Ok(found)
}

/// A kind that can't be in any machine.
fn defect(kind: &LegacyEntry, problem: String) -> Error {
    Error::LegacyKind { name: kind.name, problem }
}

/// Gives each of those that this machine has its place, in the order of the table.
pub(crate) fn plan(found: &[Found], irqchip: bool, has_acpi: bool) -> Result<Vec<Device>, Error> {
    let mut devices: Vec<Device> = Vec::new();
    for Found { index, name, planned } in found {
        if planned.presence == Presence::WithAcpi && !has_acpi {
            continue;
        }
        let gsi = planned.place.gsi.filter(|_| irqchip);
        let device =
            Device { name: name.clone(), ports: planned.place.range(), gsi, planned: planned.clone() };
        check_place(&device, &devices, irqchip).map_err(|conflict| conflict.of(*index, planned))?;
        devices.push(device);
    }
    Ok(devices)
}

/// Why a device can't be where it wants to be.
enum Conflict {
    PastEnd,
    Kvm { by: &'static str, ports: Range<u64> },
    Ports { by: String, ports: Range<u64> },
    Gsi { by: String, gsi: u32 },
}

impl Conflict {
    /// As an error of the config, if the device is there, or else of the table of kinds.
    fn of(self, index: Option<usize>, planned: &Planned) -> Error {
        let Range { start: port, end } = planned.place.range();
        let Some(index) = index else { return self.of_kind(planned) };
        match self {
            Self::PastEnd => Error::PortsPastEnd { index, start: port, count: end - port },
            Self::Kvm { by, ports } => Error::PortOfKvm { index, port, by, ports },
            Self::Ports { by, ports } => Error::PortTaken { index, port, by, ports },
            Self::Gsi { by, gsi } => Error::GsiTaken { index, gsi, by },
        }
    }

    fn of_kind(self, planned: &Planned) -> Error {
        let Range { start, end } = planned.place.range();
        let problem = match self {
            Self::PastEnd => format!("its {} ports from {start:#x} on run past the last one", end - start),
            Self::Kvm { by, .. } => format!("its ports from {start:#x} on belong to the {by}"),
            Self::Ports { by, .. } => format!("its ports from {start:#x} on belong to the {by}"),
            Self::Gsi { by, gsi } => format!("its interrupt {gsi} belongs to the {by}"),
        };
        Error::LegacyKind { name: planned.name, problem }
    }
}

fn check_place(device: &Device, others: &[Device], irqchip: bool) -> Result<(), Conflict> {
    let ports = &device.ports;
    if ports.end > LAST_PORT + 1 {
        return Err(Conflict::PastEnd);
    }
    let overlaps = |other: &Range<u64>| other.start < ports.end && ports.start < other.end;
    if let Some((by, ports)) = EMULATED_PORTS.iter().find(|(_, kvm)| irqchip && overlaps(kvm)) {
        return Err(Conflict::Kvm { by, ports: ports.clone() });
    }
    if let Some(other) = others.iter().find(|other| overlaps(&other.ports)) {
        return Err(Conflict::Ports { by: other.name.clone(), ports: other.ports.clone() });
    }
    match others.iter().find_map(|other| Some((other, other.gsi.filter(|gsi| Some(*gsi) == device.gsi)?))) {
        Some((other, gsi)) => Err(Conflict::Gsi { by: other.name.clone(), gsi }),
        None => Ok(()),
    }
}

/// What the devices say in ACPI, in the order of the table.
pub(crate) fn acpi(devices: &[Device]) -> Result<AcpiParts, Error> {
    let mut parts = AcpiParts::default();
    for Device { planned, .. } in devices {
        let described = planned.describe(&mut parts);
        described.map_err(|error| Error::LegacyKind { name: planned.name, problem: error.to_string() })?;
    }
    Ok(parts)
}

/// What of the devices is the host's to use.
pub(crate) struct Connected {
    /// Its other side is the console.
    pub(crate) serial: Arc<dyn SerialLine>,
    /// Its other side is whoever presses the power button.
    pub(crate) power_button: Option<Arc<dyn PowerButton>>,
}

/// Makes the planned devices, puts them on the bus, and their interrupts at the controllers. All print to `printed`.
pub(crate) fn connect(
    devices: &[Device],
    vm: &Vm,
    ports: &Bus,
    printed: &Arc<Output>,
) -> Result<Connected, Error> {
    let (mut serial, mut power_button) = (None, None);
    for device in devices {
        let mut wiring = Wiring::new(Arc::clone(printed));
        let built = device.planned.build(&mut wiring).tried(device.planned.name)?;
        ports.insert(device.ports.start, device.ports.end - device.ports.start, built.device)?;
        if let Some((gsi, line)) = device.gsi.zip(wiring.into_interrupt()) {
            vm.connect_irq(line.event(), gsi)?;
        }
        serial = serial.or(built.serial);
        power_button = power_button.or(built.power_button);
    }
    let serial = serial.ok_or(Error::NoSerialLine)?;
    Ok(Connected { serial, power_button })
}

/// What the devices that every machine with ACPI has say there.
#[cfg(test)]
pub(crate) fn acpi_of_a_pc() -> AcpiParts {
    let kinds = vmm_devices::KINDS.iter().filter(|kind| kind.listed_as().is_none());
    let mut parts = AcpiParts::default();
    kinds.for_each(|kind| kind.plan(&serde_json::json!({})).unwrap().describe(&mut parts).unwrap());
    parts
}
