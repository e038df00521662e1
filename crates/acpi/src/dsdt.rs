//! The DSDT: sleep state, processors and devices (ACPI 6.5 §5.2.11.1).

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Name, Package, Scope, ZERO};

use crate::description::Cpu;
use crate::table::with_header;
use crate::{Description, Error};

/// From revision 2 on, integers have 64 bits.
const REVISION: u8 = 2;

/// The container of the processors in `\_SB`. It keeps their names apart from those of devices.
pub(crate) const CPUS: &str = "CPUS";
/// Processors are named C000 to CFFF; KVM has no more than that either (KVM_MAX_VCPU_IDS).
pub(crate) const MAX_CPUS: usize = 0x1000;
/// _STA: present, enabled, shown in the UI, functioning (ACPI 6.5 §6.3.7).
const PRESENT: u8 = 0b1111;

/// Renders the DSDT of a description that has been checked.
pub(crate) fn render(description: &Description<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    s5(description.power.s5_sleep_type).to_aml_bytes(&mut body);
    let mut system_bus = processors(description.cpus);
    for device in description.devices {
        system_bus.extend(device.aml());
    }
    body.extend(Scope::raw("_SB_".into(), system_bus));
    with_header(*b"DSDT", REVISION, &body)
}

/// Checks that names in `\_SB` are unique.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut names: Vec<&str> = names.chain([CPUS]).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::DuplicateName { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

/// _S5: the SLP_TYP values of PM1a and PM1b for soft off, and two reserved numbers (ACPI 6.5 §7.4.2.6).
fn s5(sleep_type: u8) -> Name {
    Name::new("_S5_".into(), &Package::new(vec![&sleep_type, &sleep_type, &ZERO, &ZERO]))
}

/// The processor container. Each processor has the uid by which the MADT refers to it (ACPI 6.5 §8.4).
fn processors(cpus: &[Cpu]) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &"ACPI0010");
    let cpus: Vec<Raw> = cpus.iter().enumerate().map(|(index, cpu)| processor(index, cpu)).collect();
    let children = [&hid as &dyn Aml].into_iter().chain(cpus.iter().map(|cpu| cpu as &dyn Aml));
    let mut bytes = Vec::new();
    Device::new(CPUS.into(), children.collect()).to_aml_bytes(&mut bytes);
    bytes
}

fn processor(index: usize, cpu: &Cpu) -> Raw {
    let name = format!("C{index:03X}");
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let uid = Name::new("_UID".into(), &cpu.uid);
    let sta = Name::new("_STA".into(), &PRESENT);
    let mut bytes = Vec::new();
    Device::new(name.as_str().into(), vec![&hid, &uid, &sta]).to_aml_bytes(&mut bytes);
    Raw(bytes)
}

/// Rendered AML. Unlike AML nodes, it doesn't borrow its children.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}
