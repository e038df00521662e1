//! Legacy devices: found in the table of kinds, planned, and put on their bus. No kind is known here by its name.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use vmm_bus::{Bus, Output};
use vmm_config::Config;
use vmm_devices::{AcpiParts, LegacyEntry, Planned, PowerButton, Presence, SerialLine, Wiring};
use vmm_kvm::Vm;

use crate::error::Tried;
use crate::platform::{RegisterConflict, check_registers};
use crate::{Error, Kinds};

/// A device's place on the bus of legacy devices and at the interrupt controllers.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is called: its kind's name, with its id if the config may give it one.
    pub name: String,
    /// The addresses of its registers: on x86_64, I/O ports.
    pub registers: Range<u64>,
    /// Its global system interrupt.
    pub gsi: Option<u32>,
    planned: Planned,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, registers, gsi, .. } = self;
        write!(f, "{:#05x}..{:#05x}  {name}", registers.start, registers.end)?;
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
        let registers = planned.place.range();
        let device = Device { name: name.clone(), registers, gsi, planned: planned.clone() };
        check_place(&device, &devices, irqchip).map_err(|conflict| conflict.of(*index, planned.name))?;
        devices.push(device);
    }
    Ok(devices)
}

/// Why a device can't be where it wants to be.
enum Conflict {
    Registers(RegisterConflict),
    Gsi { by: String, gsi: u32 },
}

impl Conflict {
    /// As an error of the config, if the device is there, or else of its kind.
    fn of(self, index: Option<usize>, name: &'static str) -> Error {
        match (self, index) {
            (Self::Registers(source), Some(index)) => Error::Registers { index, source },
            (Self::Gsi { by, gsi }, Some(index)) => Error::GsiTaken { index, gsi, by },
            (Self::Registers(conflict), None) => Error::LegacyKind { name, problem: conflict.to_string() },
            (Self::Gsi { by, gsi }, None) => {
                Error::LegacyKind { name, problem: format!("interrupt {gsi} belongs to the {by}") }
            }
        }
    }
}

fn check_place(device: &Device, others: &[Device], irqchip: bool) -> Result<(), Conflict> {
    let named = others.iter().map(|other| (other.name.as_str(), &other.registers));
    check_registers(&device.registers, irqchip, named).map_err(Conflict::Registers)?;
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
    bus: &Bus,
    printed: &Arc<Output>,
) -> Result<Connected, Error> {
    let (mut serial, mut power_button) = (None, None);
    for device in devices {
        let mut wiring = Wiring::new(Arc::clone(printed));
        let built = device.planned.build(&mut wiring).tried(device.planned.name)?;
        let Range { start, end } = device.registers;
        bus.insert(start, end - start, built.device)?;
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
