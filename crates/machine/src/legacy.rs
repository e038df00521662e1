//! Legacy devices: looked up in the table of kinds, planned, and put on their bus. No kind is known here by name.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use vmm_bus::{Bus, Output};
use vmm_config::Config;
use vmm_devices::{
    AcpiParts, DeviceState, LegacyEntry, PlannedDevice, PowerButton, Presence, SerialLine, Wiring,
};
use vmm_kvm::Vm;

use crate::error::HostContext;
use crate::platform::{PCI_REGISTERS, RegisterConflict, check_registers};
use crate::{Error, Kinds};

/// A legacy device with its registers and its interrupt.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its kind's name, and its id if the config can set one.
    pub name: String,
    /// The addresses of its registers; I/O ports on x86_64.
    pub registers: Range<u64>,
    /// Its global system interrupt, if it has one.
    pub gsi: Option<u32>,
    pub(crate) planned: PlannedDevice,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, registers, gsi, .. } = self;
        write!(f, "{:#05x}..{:#05x}  {name}", registers.start, registers.end)?;
        gsi.map_or(Ok(()), |gsi| write!(f, ", gsi {gsi}"))
    }
}

impl Device {
    /// Whether kernels that don't read the ACPI tables use this device too.
    pub(crate) fn is_there_without_acpi(&self) -> bool {
        self.planned.presence != Presence::WithAcpi
    }
}

/// A device that the machine may have: whether it does depends on [`Presence`].
#[derive(Debug)]
pub(crate) struct LegacyCandidate {
    /// Its index in the config's `devices`, if it is listed there.
    index: Option<usize>,
    pub(crate) name: String,
    pub(crate) planned: PlannedDevice,
}

/// The devices that need no entry in the config, in the order of the table, then those that the config lists.
pub(crate) fn candidates(config: &Config, kinds: &Kinds<'_>) -> Result<Vec<LegacyCandidate>, Error> {
    let mut found = Vec::new();
    for kind in kinds.legacy().filter(|kind| kind.listed_as().is_none()) {
        let planned = kind.plan(&serde_json::json!({}));
        let planned = planned
            .map_err(|error| defect(kind, format!("is in the config of no machine, but wants {error}")))?;
        found.push(LegacyCandidate { index: None, name: kind.name.to_owned(), planned });
    }
    for (index, device) in config.devices.iter().enumerate() {
        let (kind, fields) = device.kind_and_fields();
        let Some(kind) = kinds.listed_legacy(&kind) else {
            match device {
                // Handled by `virtio::open`, which refuses unknown types.
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
        found.push(LegacyCandidate { index: Some(index), name, planned });
    }
    Ok(found)
}

/// An error for a kind that can't be in any machine.
fn defect(kind: &LegacyEntry, problem: String) -> Error {
    Error::LegacyKind { name: kind.name, problem }
}

/// Places the candidates that this machine has, in their order.
pub(crate) fn plan(
    found: &[LegacyCandidate],
    irqchip: bool,
    has_acpi: bool,
    has_pci: bool,
) -> Result<Vec<Device>, Error> {
    let mut devices: Vec<Device> = Vec::new();
    for LegacyCandidate { index, name, planned } in found {
        if planned.presence == Presence::WithAcpi && !has_acpi {
            continue;
        }
        let gsi = planned.place.gsi.filter(|_| irqchip);
        let registers = planned.place.registers();
        let device = Device { name: name.clone(), registers, gsi, planned: planned.clone() };
        check_place(&device, &devices, irqchip, has_pci)
            .map_err(|conflict| conflict.of(*index, planned.name))?;
        devices.push(device);
    }
    Ok(devices)
}

/// Why a device can't have its registers or its interrupt.
enum Conflict {
    Registers(RegisterConflict),
    Gsi { by: String, gsi: u32 },
}

impl Conflict {
    /// An error about the config if the device is listed there, else about its kind.
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

fn check_place(device: &Device, others: &[Device], irqchip: bool, has_pci: bool) -> Result<(), Conflict> {
    let (name, registers) = &PCI_REGISTERS;
    let named = others.iter().map(|other| (other.name.as_str(), &other.registers));
    let named = named.chain(has_pci.then_some((*name, registers)));
    check_registers(&device.registers, irqchip, named).map_err(Conflict::Registers)?;
    match others.iter().find_map(|other| Some((other, other.gsi.filter(|gsi| Some(*gsi) == device.gsi)?))) {
        Some((other, gsi)) => Err(Conflict::Gsi { by: other.name.clone(), gsi }),
        None => Ok(()),
    }
}

/// The devices' ACPI descriptions, in the order of the table.
pub(crate) fn acpi(devices: &[Device]) -> Result<AcpiParts, Error> {
    let mut parts = AcpiParts::default();
    for Device { planned, .. } in devices {
        let described = planned.describe(&mut parts);
        described.map_err(|error| Error::LegacyKind { name: planned.name, problem: error.to_string() })?;
    }
    Ok(parts)
}

/// The host's ends of the devices.
pub(crate) struct LegacyHostEnds {
    /// The serial line, which a console is connected to.
    pub(crate) serial: Arc<dyn SerialLine>,
    /// The power button, if a device has one.
    pub(crate) power_button: Option<Arc<dyn PowerButton>>,
    /// What a snapshot contains of each device, in the order of the plan.
    pub(crate) states: Vec<DeviceState>,
}

/// Creates the planned devices, puts them on the bus and connects their interrupts. They print to `printed`.
pub(crate) fn connect(
    devices: &[Device],
    vm: &Vm,
    bus: &Bus,
    printed: &Arc<Output>,
) -> Result<LegacyHostEnds, Error> {
    let (mut serial, mut power_button, mut states) = (None, None, Vec::new());
    for device in devices {
        let mut wiring = Wiring::new(Arc::clone(printed));
        let built = device.planned.build(&mut wiring).context(device.planned.name)?;
        bus.insert(device.registers.clone(), built.device)?;
        if let Some((gsi, line)) = device.gsi.zip(wiring.into_interrupt()) {
            vm.connect_irq(line.event(), gsi)?;
        }
        serial = serial.or(built.serial);
        power_button = power_button.or(built.power_button);
        states.push(built.state);
    }
    let serial = serial.ok_or(Error::NoSerialLine)?;
    Ok(LegacyHostEnds { serial, power_button, states })
}

/// The ACPI descriptions of the devices that every machine with ACPI has.
#[cfg(test)]
pub(crate) fn acpi_of_a_pc() -> AcpiParts {
    let kinds = vmm_devices::KINDS.iter().filter(|kind| kind.listed_as().is_none());
    let mut parts = AcpiParts::default();
    kinds.for_each(|kind| kind.plan(&serde_json::json!({})).unwrap().describe(&mut parts).unwrap());
    parts
}
