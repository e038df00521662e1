//! The MADT: processors and interrupt controllers (ACPI 6.5 §5.2.12).

use crate::description::{Cpu, IoApic, Override};
use crate::table::{HEADER_LEN, with_header};
use crate::{Description, Error};

/// MADT revision of ACPI 6.5.
const REVISION: u8 = 6;

/// The first APIC id that a Processor Local APIC structure can't hold: 255 isn't a processor there.
const FIRST_X2APIC_ID: u32 = 255;
/// The processor uid that means all processors.
const ALL_PROCESSORS: u32 = u32::MAX;

/// MADT flag: there are two 8259s, which kernels that use the I/O APIC must mask.
const PCAT_COMPAT: u32 = 1;
/// Processor flag: ready for use.
const ENABLED: u32 = 1;

/// Types of interrupt controller structures.
mod kind {
    pub(super) const LOCAL_APIC: u8 = 0;
    pub(super) const IO_APIC: u8 = 1;
    pub(super) const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
    pub(super) const LOCAL_APIC_NMI: u8 = 4;
    pub(super) const LOCAL_X2APIC: u8 = 9;
    pub(super) const LOCAL_X2APIC_NMI: u8 = 10;
}

/// Bus of interrupt source overrides, always ISA.
const ISA: u8 = 0;
/// MPS INTI flags: polarity and trigger mode conform to the bus.
const CONFORMS: u16 = 0;
/// The local APIC input at which NMIs arrive on a PC.
const LINT1: u8 = 1;

/// Renders the MADT of a description that has been checked.
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

/// Checks that a MADT structure can describe the processor.
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

/// Appends a structure: type, length and `fields`.
fn push(body: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let fields = fields.concat();
    body.extend([kind, 2 + fields.len() as u8]);
    body.extend(fields);
}

/// Appends a Processor Local APIC or Local x2APIC structure (ACPI 6.5 §5.2.12.2, §5.2.12.12).
fn push_cpu(body: &mut Vec<u8>, cpu: &Cpu) {
    let (uid, apic_id, flags) = (cpu.uid.to_le_bytes(), cpu.apic_id.to_le_bytes(), ENABLED.to_le_bytes());
    match is_x2apic(cpu) {
        false => push(body, kind::LOCAL_APIC, &[&uid[..1], &apic_id[..1], &flags]),
        true => push(body, kind::LOCAL_X2APIC, &[&[0; 2], &apic_id, &flags, &uid]),
    }
}

/// Appends an I/O APIC structure (ACPI 6.5 §5.2.12.3).
fn push_io_apic(body: &mut Vec<u8>, ioapic: &IoApic) {
    let (address, gsi_base) = (ioapic.address.to_le_bytes(), ioapic.gsi_base.to_le_bytes());
    push(body, kind::IO_APIC, &[&[ioapic.id, 0], &address, &gsi_base]);
}

/// Appends an Interrupt Source Override (ACPI 6.5 §5.2.12.5).
fn push_override(body: &mut Vec<u8>, source: &Override) {
    let flags = source.polarity as u16 | source.trigger as u16;
    let (gsi, flags) = (source.gsi.to_le_bytes(), flags.to_le_bytes());
    push(body, kind::INTERRUPT_SOURCE_OVERRIDE, &[&[ISA, source.irq], &gsi, &flags]);
}

/// Appends the NMI structure for all processors. ACPI 6.5 §5.2.12.7 and §5.2.12.13 require the x2APIC form as
/// soon as one processor has an id of 255 or above.
fn push_nmi(body: &mut Vec<u8>, cpus: &[Cpu]) {
    let (all, flags) = (ALL_PROCESSORS.to_le_bytes(), CONFORMS.to_le_bytes());
    match cpus.iter().any(is_x2apic) {
        false => push(body, kind::LOCAL_APIC_NMI, &[&all[..1], &flags, &[LINT1]]),
        true => push(body, kind::LOCAL_X2APIC_NMI, &[&flags, &all, &[LINT1], &[0; 3]]),
    }
}
