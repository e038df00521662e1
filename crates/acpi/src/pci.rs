//! PCI: the host bridge, and its memory-mapped configuration spaces.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, ResourceTemplate, ZERO,
};
use acpi_tables::mcfg::MCFG;

use crate::table::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, aml_bytes};
use crate::{Error, Fragment};

/// The MCFG table (PCI Firmware Specification 3.3 §4.1.2): the configuration spaces of bus 0, at `ecam`.
pub(crate) fn mcfg(ecam: u64) -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ecam, 0, 0, 0);
    aml_bytes(&mcfg)
}

/// Makes the fragment of a host bridge, `\_SB.PCI0`, with bus 0 alone and with function 0's configuration ports.
///
/// `window` is where the operating system may put BARs, below 4 GiB. It must hold nothing else: all of it belongs to the bus.
///
/// # Errors
/// `window` is empty or not below 4 GiB.
pub fn pci_root(window: Range<u64>) -> Result<Fragment, Error> {
    let wrong = || Error::Registers { name: "PCI0".to_owned(), registers: window.clone() };
    let first = u32::try_from(window.start).map_err(|_| wrong())?;
    let last = window.end.checked_sub(1).and_then(|last| u32::try_from(last).ok()).ok_or_else(wrong)?;
    if window.is_empty() {
        return Err(wrong());
    }
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let segment = Name::new("_SEG".into(), &ZERO);
    let uid = Name::new("_UID".into(), &ZERO);
    let bus = AddressSpace::new_bus_number(0u16, 0u16);
    let ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let memory = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&bus, &ports, &memory]));
    let mut aml = Vec::new();
    Device::new("PCI0".into(), vec![&hid, &cid, &segment, &uid, &resources]).to_aml_bytes(&mut aml);
    Fragment::from_aml("PCI0", aml)
}
