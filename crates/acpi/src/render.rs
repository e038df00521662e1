//! Checks the description, renders the tables and places them.

use std::ops::Range;

use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;

use crate::table::{HEADER_LEN, OEM_ID, aml_bytes, with_header};
use crate::{Description, Error, Table, dsdt, fadt, madt, pci};

/// Where kernels search for the RSDP, besides the EBDA (ACPI 6.5 §5.2.5.1).
const SEARCHED: Range<u64> = 0xe_0000..0x10_0000;
/// Alignment on which they search for it.
const RSDP_ALIGNMENT: u64 = 16;
/// The FACS contains a lock, so it must not straddle a cache line (ACPI 6.5 §5.2.10).
const FACS_ALIGNMENT: u64 = 64;
/// Tables have 8-byte fields.
const TABLE_ALIGNMENT: u64 = 8;

/// All tables of a machine, each at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The RSDP, which points to the other tables. Boot protocols pass its address; kernels also find it by
    /// searching the BIOS area.
    pub rsdp: Table,
    /// The other tables, in ascending order, disjoint.
    pub others: Vec<Table>,
}

impl Tables {
    /// All tables, in ascending order, disjoint.
    pub fn iter(&self) -> impl Iterator<Item = &Table> {
        [&self.rsdp].into_iter().chain(&self.others)
    }
}

/// Renders the tables of the machine into `area`: the RSDP at its start, then the others.
///
/// `area` is a range of guest-physical addresses within 0xe0000..0x100000, where kernels search for the RSDP,
/// and starts at a multiple of 16. The memory map should mark it reserved. 64 KiB suffice for 1,024
/// processors and a hundred devices.
///
/// # Errors
/// `area` isn't as described or is too small, or the description is invalid: see [`Error`].
pub fn render(description: &Description<'_>, area: Range<u64>) -> Result<Tables, Error> {
    if area.start < SEARCHED.start || area.end > SEARCHED.end || area.start > area.end {
        return Err(Error::Area { area });
    }
    if !area.start.is_multiple_of(RSDP_ALIGNMENT) {
        return Err(Error::Area { area });
    }
    check(description)?;
    let dsdt = dsdt::render(description);
    let madt = madt::render(description);

    // The FACS comes first after the RSDP, where its alignment costs least. A new table has to be placed here
    // and added to the XSDT's entries.
    let rsdp_at = area.start;
    let mut end = rsdp_at + Rsdp::len() as u64;
    let facs_at = place(&mut end, FACS_ALIGNMENT, FACS::len());
    let xsdt_at = place(&mut end, TABLE_ALIGNMENT, xsdt_len(2 + description.ecam.iter().len()));
    let fadt_at = place(&mut end, TABLE_ALIGNMENT, fadt::len());
    let madt_at = place(&mut end, TABLE_ALIGNMENT, madt.len());
    let dsdt_at = place(&mut end, TABLE_ALIGNMENT, dsdt.len());
    let mcfg = description.ecam.map(pci::mcfg);
    let mcfg_at = mcfg.as_ref().map(|mcfg| place(&mut end, TABLE_ALIGNMENT, mcfg.len()));
    if end > area.end {
        return Err(Error::NoRoom {
            needed_len: end - area.start,
            area,
            dsdt_len: dsdt.len(),
            madt_len: madt.len(),
            cpus: description.cpus.len(),
            devices: description.devices.len(),
        });
    }

    let fadt = fadt::render(description, below_1_mib(facs_at), below_1_mib(dsdt_at));
    let rsdp = Table { name: "RSDP", gpa: rsdp_at, bytes: aml_bytes(&Rsdp::new(OEM_ID, xsdt_at)) };
    let listed: Vec<u64> = [fadt_at, madt_at].into_iter().chain(mcfg_at).collect();
    let mut others = vec![
        Table { name: "FACS", gpa: facs_at, bytes: facs() },
        Table { name: "XSDT", gpa: xsdt_at, bytes: xsdt(&listed) },
        Table { name: "FACP", gpa: fadt_at, bytes: fadt },
        Table { name: "APIC", gpa: madt_at, bytes: madt },
        Table { name: "DSDT", gpa: dsdt_at, bytes: dsdt },
    ];
    others.extend(mcfg_at.zip(mcfg).map(|(gpa, bytes)| Table { name: "MCFG", gpa, bytes }));
    Ok(Tables { rsdp, others })
}

/// Checks what the renderers rely on.
fn check(description: &Description<'_>) -> Result<(), Error> {
    let Description { cpus, overrides, power, devices, .. } = description;
    if cpus.len() > dsdt::MAX_CPUS {
        return Err(Error::TooManyCpus { count: cpus.len(), max: dsdt::MAX_CPUS });
    }
    cpus.iter().try_for_each(madt::check_cpu)?;
    if let Some(number) = duplicate(cpus.iter().map(|cpu| cpu.uid)) {
        return Err(Error::DuplicateCpu { what: "uid", number });
    }
    if let Some(number) = duplicate(cpus.iter().map(|cpu| cpu.apic_id)) {
        return Err(Error::DuplicateCpu { what: "APIC id", number });
    }
    if let Some(source) = overrides.iter().find(|source| source.irq >= 16) {
        return Err(Error::NotIsa { irq: source.irq });
    }
    if let Some(irq) = duplicate(overrides.iter().map(|source| source.irq)) {
        return Err(Error::DuplicateOverride { irq });
    }
    if power.s5_sleep_type > 7 {
        return Err(Error::SleepType { value: power.s5_sleep_type });
    }
    dsdt::check_names(devices.iter().map(|device| device.name()))
}

fn duplicate<T: Ord + Copy>(numbers: impl Iterator<Item = T>) -> Option<T> {
    let mut numbers: Vec<T> = numbers.collect();
    numbers.sort_unstable();
    numbers.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Returns the next address aligned to `alignment`, and moves `end` past the `len` bytes there. Can't
/// overflow: `end` starts below 1 MiB, and lengths are those of vectors in memory.
fn place(end: &mut u64, alignment: u64, len: usize) -> u64 {
    let at = end.next_multiple_of(alignment);
    *end = at + len as u64;
    at
}

fn below_1_mib(gpa: u64) -> u32 {
    u32::try_from(gpa).expect("the tables fit the area, which ends at 1 MiB")
}

fn xsdt_len(entries: usize) -> usize {
    HEADER_LEN + 8 * entries
}

/// The XSDT. It lists all tables except the DSDT and the FACS, which the FADT points to (ACPI 6.5 §5.2.8).
fn xsdt(entries: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = entries.iter().flat_map(|gpa| gpa.to_le_bytes()).collect();
    with_header(*b"XSDT", 1, &body)
}

/// The FACS, shared by firmware and kernel (ACPI 6.5 §5.2.10). It is unused without S3 or SMM.
fn facs() -> Vec<u8> {
    let mut facs = FACS::new();
    facs.version = 2;
    aml_bytes(&facs)
}
