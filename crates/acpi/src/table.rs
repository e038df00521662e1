//! A table with its address, and the header common to all tables except the RSDP and the FACS.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::sdt::Sdt;

/// Vendor of the tables, six characters.
pub(crate) const OEM_ID: [u8; 6] = *b"VMM   ";
/// Machine that the tables are for, eight characters.
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"VMM     ";
/// Version of that machine.
pub(crate) const OEM_REVISION: u32 = 1;

/// Length of the table header in bytes (ACPI 6.5 §5.2.6).
pub(crate) const HEADER_LEN: usize = 36;

/// A table, ready to be written to guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The name that kernels log: "RSDP", "FACP", "APIC" and so on.
    pub name: &'static str,
    /// Guest-physical address.
    pub gpa: u64,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl Table {
    /// The guest-physical addresses it occupies.
    pub fn range(&self) -> Range<u64> {
        self.gpa..self.gpa + self.bytes.len() as u64
    }
}

/// The bytes of a table: header with checksum, then `body`.
pub(crate) fn with_header(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER_LEN as u32, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // In one call: each append computes the checksum of the whole table.
    table.append_slice(body);
    table.as_slice().to_vec()
}

pub(crate) fn aml_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
