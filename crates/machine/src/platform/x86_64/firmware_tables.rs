//! The tables in which firmware describes the machine to a kernel.

use std::fmt;
use std::ops::Range;

use vmm_acpi::Tables;
use vmm_arch::mptable::MpTable;
use vmm_arch::topology::Topology;
use vmm_devices::AcpiParts;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::{acpi, mptable};
use crate::{Error, VirtioPlan};

/// The tables for a kernel that is booted by a boot protocol on a machine with interrupt controllers. Other guests have none, the
/// default.
#[derive(Clone, Debug, Default)]
pub struct FirmwareTables {
    /// The ACPI tables.
    pub acpi: Option<Tables>,
    /// The MP table for kernels without ACPI; `None` if the ACPI tables leave no room for it.
    pub mp_table: Option<MpTable>,
}

impl FirmwareTables {
    /// The tables of a machine with these vCPUs, and with these devices in ACPI.
    pub(crate) fn new(topology: Topology, legacy: AcpiParts, virtio: &[VirtioPlan]) -> Result<Self, Error> {
        let acpi = acpi::tables(topology, legacy, virtio)?;
        let mp_table = mptable::table(topology, &acpi);
        Ok(Self { acpi: Some(acpi), mp_table })
    }

    /// Whether a kernel without ACPI finds all processors and interrupts, by an MP table.
    pub(crate) fn serve_without_acpi(&self) -> bool {
        self.mp_table.is_some()
    }

    /// Writes the tables into guest memory, where kernels search for them.
    pub(crate) fn write(&self, ram: &GuestRam) -> Result<(), Error> {
        let acpi = self.acpi.iter().flat_map(Tables::iter).map(|table| (table.gpa, &table.bytes[..]));
        let mp_table = self.mp_table.iter().map(|table| (table.range().start, table.bytes()));
        for (gpa, bytes) in acpi.chain(mp_table) {
            let written = ram.memory().write_slice(bytes, GuestAddress(gpa));
            written.map_err(|source| Error::TablesWrite { gpa, source })?;
        }
        Ok(())
    }

    /// The name and guest-physical range of each table.
    pub(crate) fn ranges(&self) -> Vec<(&'static str, Range<u64>)> {
        let acpi = self.acpi.iter().flat_map(Tables::iter).map(|table| (table.name, table.range()));
        acpi.chain(self.mp_table.iter().map(|table| ("MP table", table.range()))).collect()
    }
}

/// A line for each table.
impl fmt::Display for FirmwareTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(acpi) = &self.acpi {
            writeln!(f, "acpi tables:")?;
            for table in acpi.iter() {
                let end = table.gpa + table.bytes.len() as u64;
                writeln!(f, "  {:#011x}..{end:#011x} {}", table.gpa, table.name)?;
            }
        }
        if let Some(table) = &self.mp_table {
            let range = table.range();
            writeln!(f, "mp table: {:#011x}..{:#011x}", range.start, range.end)?;
        }
        Ok(())
    }
}
