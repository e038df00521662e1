//! Processors and interrupt controllers (ACPI 6.5 §5.2.12).

use crate::description::{Cpu, IoApic, Override};
use crate::table::{HEADER_LEN, with_header};
use crate::{Description, Error};

/// The revision of ACPI 6.5.
const REVISION: u8 = 6;

/// The first APIC id that has no room in a Processor Local APIC structure: there, 255 is no processor's.
const FIRST_X2APIC_ID: u32 = 255;
/// In a structure for one processor: all of them.
const ALL_PROCESSORS: u32 = u32::MAX;

/// Flag of the table: there are two 8259, which kernels that use the I/O APIC have to mask.
const PCAT_COMPAT: u32 = 1;
/// Flag of a processor: it is ready for use.
const ENABLED: u32 = 1;

/// Types of structures.
mod kind {
    pub(super) const LOCAL_APIC: u8 = 0;
    pub(super) const IO_APIC: u8 = 1;
    pub(super) const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
    pub(super) const LOCAL_APIC_NMI: u8 = 4;
    pub(super) const LOCAL_X2APIC: u8 = 9;
    pub(super) const LOCAL_X2APIC_NMI: u8 = 10;
}

/// The bus of interrupt source overrides, which is always ISA.
const ISA: u8 = 0;
/// How an NMI arrives: as the bus says.
const CONFORMS: u16 = 0;
/// The input of a local APIC at which NMIs arrive on a PC.
const LINT1: u8 = 1;

/// The table. The caller has checked the description.
pub(crate) fn render(description: &Description<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER_LEN + 16 * description.cpus.len());
    body.extend(description.local_apic.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for cpu in description.cpus {
        push_cpu(&mut body, cpu);
    }
    push_io_apic(&mut body, &description.ioapic);
    for source in description.overrides {
        push_override(&mut body, source);
    }
    if description.nmi_on_lint1 {
        push_nmi(&mut body, description.cpus);
    }
    with_header(*b"APIC", REVISION, &body)
}

/// Whether the table can tell of this processor.
pub(crate) fn check_cpu(cpu: &Cpu) -> Result<(), Error> {
    let fits = match is_x2apic(cpu) {
        false => cpu.uid < FIRST_X2APIC_ID,
        true => cpu.uid != ALL_PROCESSORS && cpu.apic_id != ALL_PROCESSORS,
    };
    fits.then_some(()).ok_or(Error::CpuNumbers { uid: cpu.uid, apic_id: cpu.apic_id })
}

fn is_x2apic(cpu: &Cpu) -> bool {
    cpu.apic_id >= FIRST_X2APIC_ID
}

/// A structure: its type, its length, and `fields`.
fn push(body: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let fields = fields.concat();
    body.extend([kind, 2 + fields.len() as u8]);
    body.extend(fields);
}

/// ACPI 6.5 §5.2.12.2 and §5.2.12.12.
fn push_cpu(body: &mut Vec<u8>, cpu: &Cpu) {
    let (uid, apic_id, flags) = (cpu.uid.to_le_bytes(), cpu.apic_id.to_le_bytes(), ENABLED.to_le_bytes());
    match is_x2apic(cpu) {
        false => push(body, kind::LOCAL_APIC, &[&uid[..1], &apic_id[..1], &flags]),
        true => push(body, kind::LOCAL_X2APIC, &[&[0; 2], &apic_id, &flags, &uid]),
    }
}

/// ACPI 6.5 §5.2.12.3.
fn push_io_apic(body: &mut Vec<u8>, ioapic: &IoApic) {
    let (address, gsi_base) = (ioapic.address.to_le_bytes(), ioapic.gsi_base.to_le_bytes());
    push(body, kind::IO_APIC, &[&[ioapic.id, 0], &address, &gsi_base]);
}

/// ACPI 6.5 §5.2.12.5.
fn push_override(body: &mut Vec<u8>, source: &Override) {
    let flags = source.polarity as u16 | source.trigger as u16;
    let (gsi, flags) = (source.gsi.to_le_bytes(), flags.to_le_bytes());
    push(body, kind::INTERRUPT_SOURCE_OVERRIDE, &[&[ISA, source.irq], &gsi, &flags]);
}

/// ACPI 6.5 §5.2.12.7 and §5.2.12.13, which wants the second form for all processors as soon as one has an id
/// of 255 or above.
fn push_nmi(body: &mut Vec<u8>, cpus: &[Cpu]) {
    let (all, flags) = (ALL_PROCESSORS.to_le_bytes(), CONFORMS.to_le_bytes());
    match cpus.iter().any(is_x2apic) {
        false => push(body, kind::LOCAL_APIC_NMI, &[&all[..1], &flags, &[LINT1]]),
        true => push(body, kind::LOCAL_X2APIC_NMI, &[&flags, &all, &[LINT1], &[0; 3]]),
    }
}
