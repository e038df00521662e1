//! Reads tables as a kernel does: by address, starting from the RSDP.

use std::collections::BTreeMap;

use vmm_acpi::{Table, Tables};

/// A number of `N` bytes at `offset`.
pub(crate) fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[offset..offset + N]);
    u64::from_le_bytes(number)
}

/// The table called `name`.
pub(crate) fn table<'a>(tables: &'a Tables, name: &str) -> &'a Table {
    tables.iter().find(|table| table.name == name).unwrap()
}

/// The sum of all bytes, which is 0 for a table with a valid checksum.
pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The addresses of the tables by signature, found by following the RSDP.
pub(crate) fn walk(tables: &Tables) -> BTreeMap<String, u64> {
    let by_gpa: BTreeMap<u64, &Table> = tables.iter().map(|table| (table.gpa, table)).collect();
    let xsdt = by_gpa[&number::<8>(&tables.rsdp.bytes, 24)];
    let listed: Vec<&Table> =
        (36..xsdt.bytes.len()).step_by(8).map(|offset| by_gpa[&number::<8>(&xsdt.bytes, offset)]).collect();
    let fadt = listed.iter().find(|table| table.bytes.starts_with(b"FACP")).unwrap();
    let pointed_to = [by_gpa[&number::<8>(&fadt.bytes, 132)], by_gpa[&number::<8>(&fadt.bytes, 140)]];
    let found = [xsdt].into_iter().chain(listed).chain(pointed_to);
    found.map(|table| (String::from_utf8_lossy(&table.bytes[..4]).into_owned(), table.gpa)).collect()
}

/// The structures of a MADT, as type and bytes.
pub(crate) fn structures(madt: &Table) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &madt.bytes[44..];
    let mut structures = Vec::new();
    while let [kind, len, ..] = *rest {
        let (structure, behind) = rest.split_at(usize::from(len));
        structures.push((kind, structure.to_vec()));
        rest = behind;
    }
    structures
}
