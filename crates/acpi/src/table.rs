//! A table with its place, and the header that all tables but the RSDP and the FACS have.

use std::ops::Range;

use acpi_tables::sdt::Sdt;

/// Six characters that say who made the tables.
pub(crate) const OEM_ID: [u8; 6] = *b"VMM   ";
/// Eight characters that say for which machine.
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"VMM     ";
/// Which version of that machine.
pub(crate) const OEM_REVISION: u32 = 1;

/// Length of the header (ACPI 6.5 §5.2.6).
pub(crate) const HEADER_LEN: usize = 36;

/// One table, ready to be written to guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it is called, as kernels' logs do: "RSDP", "FACP", "APIC" and so on.
    pub name: &'static str,
    /// Its guest-physical address.
    pub gpa: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Table {
    /// The guest-physical addresses that it occupies.
    pub fn range(&self) -> Range<u64> {
        self.gpa..self.gpa + self.bytes.len() as u64
    }
}

/// The bytes of a table: header, checksum and `body`.
pub(crate) fn with_header(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER_LEN as u32, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // All at once: each append sums up the whole table again.
    table.append_slice(body);
    table.as_slice().to_vec()
}
