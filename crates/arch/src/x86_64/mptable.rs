//! The MP table, which describes processors and interrupts to kernels without ACPI (Intel MultiProcessor
//! Specification 1.4).
//!
//! ```
//! use vmm_arch::mptable::{Cpu, Description, Interrupt, IoApic, MpTable};
//!
//! let cpu = |apic_id| Cpu { apic_id, version: 0x14, signature: 0x600, features: 0x201 };
//! let table = MpTable::new(
//!     &Description {
//!         cpus: &[cpu(0), cpu(1)],
//!         local_apic: 0xfee0_0000,
//!         ioapic: IoApic { id: 2, version: 0x11, address: 0xfec0_0000 },
//!         interrupts: &[Interrupt { irq: 4, pin: 4 }],
//!     },
//!     0xf_0000,
//! );
//! assert_eq!(table.pointer()[..4], *b"_MP_");
//! assert_eq!(table.range(), 0xf_0000..0xf_0000 + 16 + 44 + 2 * 20 + 4 * 8 + 8);
//! ```

use std::ops::Range;

/// Alignment on which kernels search for the floating pointer structure (§4).
pub const ALIGNMENT: u64 = 16;
/// Length of the floating pointer structure (§4.1). The configuration table follows it here.
const POINTER_LEN: usize = 16;
/// Length of the configuration table's header (§4.2).
const HEADER_LEN: usize = 44;
/// Revision of the specification: 1.4 (§4.1, §4.2).
const SPEC_REVISION: u8 = 4;

/// OEM id, 8 characters, and product id, 12 characters (§4.2).
const OEM_AND_PRODUCT: [u8; 20] = *b"VMM     VMM         ";

/// Types of entries (§4.3).
mod entry {
    pub(super) const PROCESSOR: u8 = 0;
    pub(super) const BUS: u8 = 1;
    pub(super) const IO_APIC: u8 = 2;
    pub(super) const IO_INTERRUPT: u8 = 3;
    pub(super) const LOCAL_INTERRUPT: u8 = 4;
}

/// Types of interrupts (§4.3.4).
mod interrupt {
    pub(super) const INT: u8 = 0;
    pub(super) const NMI: u8 = 1;
    pub(super) const EXT_INT: u8 = 3;
}

/// Processor flags (§4.3.1): usable, and boot processor.
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 1 << 1;
/// I/O APIC flag (§4.3.3): usable.
const USABLE: u8 = 1;
/// Interrupt flags (§4.3.4): polarity and trigger mode of the bus, which are active high and edge for ISA.
const CONFORMS: u16 = 0;
/// Interrupt flags: explicitly active high and edge-triggered.
const ACTIVE_HIGH_EDGE: u16 = 0b01 | 0b01 << 2;

/// Id of the only bus.
const ISA: u8 = 0;
/// Number of ISA interrupts.
const ISA_IRQS: u8 = 16;
/// Destination of local interrupts: all local APICs (§4.3.5).
const ALL_LOCAL_APICS: u8 = 0xff;

/// Maximum number of processors, whose APIC ids start from 0: ids have 8 bits, 255 means all processors, and
/// the I/O APIC needs an id of its own (§3.6.6).
pub const MAX_CPUS: u32 = 254;

/// A machine as the MP table describes it.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The processors, boot processor first; at most [`MAX_CPUS`], with unique ids.
    pub cpus: &'a [Cpu],
    /// Guest-physical address of the local APICs' registers.
    pub local_apic: u32,
    /// The I/O APIC of the devices' interrupts.
    pub ioapic: IoApic,
    /// ISA interrupts and their I/O APIC pins, rising-edge triggered. ISA has no interrupts from 16 on, but
    /// Linux accepts such numbers as its own interrupt numbers.
    pub interrupts: &'a [Interrupt],
}

/// A processor (§4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Local APIC id.
    pub apic_id: u8,
    /// Local APIC version.
    pub version: u8,
    /// Family, model and stepping, as in EAX of CPUID leaf 1.
    pub signature: u32,
    /// Features, as in EDX of CPUID leaf 1.
    pub features: u32,
}

/// An I/O APIC (§4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// I/O APIC id, different from all processors' ids.
    pub id: u8,
    /// I/O APIC version.
    pub version: u8,
    /// Guest-physical address of its registers.
    pub address: u32,
}

/// The I/O APIC pin of an interrupt (§4.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Interrupt number.
    pub irq: u8,
    /// I/O APIC pin.
    pub pin: u8,
}

/// The floating pointer structure, which kernels search for, followed by the configuration table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpTable {
    gpa: u32,
    bytes: Vec<u8>,
}

impl MpTable {
    /// Builds the table for guest-physical address `gpa`, a multiple of [`ALIGNMENT`] in the BIOS area.
    pub fn new(description: &Description<'_>, gpa: u32) -> Self {
        let configuration = configuration(description);
        let mut bytes = pointer(gpa + POINTER_LEN as u32).to_vec();
        bytes.extend(configuration);
        Self { gpa, bytes }
    }

    /// The guest-physical addresses it occupies.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.gpa);
        start..start + self.bytes.len() as u64
    }

    /// The bytes, from the floating pointer structure on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The floating pointer structure.
    pub fn pointer(&self) -> &[u8] {
        &self.bytes[..POINTER_LEN]
    }

    /// The configuration table.
    pub fn configuration(&self) -> &[u8] {
        &self.bytes[POINTER_LEN..]
    }
}

/// The floating pointer structure (§4.1). The feature bytes are 0: there is a configuration table and no
/// IMCR, that is, "virtual wire mode" (§3.6.2.2).
fn pointer(configuration_at: u32) -> [u8; POINTER_LEN] {
    let mut pointer = [0; POINTER_LEN];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&configuration_at.to_le_bytes());
    // Length in units of 16 bytes.
    pointer[8] = (POINTER_LEN / 16) as u8;
    pointer[9] = SPEC_REVISION;
    pointer[10] = checksum(&pointer);
    pointer
}

/// The configuration table (§4.2, §4.3). Entries are in ascending order of type.
fn configuration(description: &Description<'_>) -> Vec<u8> {
    let Description { cpus, local_apic, ioapic, interrupts } = description;
    let mut table = vec![0; HEADER_LEN];
    for (index, cpu) in cpus.iter().enumerate() {
        push_cpu(&mut table, cpu, index == 0);
    }
    table.extend([entry::BUS, ISA]);
    table.extend(b"ISA   ");
    table.extend([entry::IO_APIC, ioapic.id, ioapic.version, USABLE]);
    table.extend(ioapic.address.to_le_bytes());
    for Interrupt { irq, pin } in *interrupts {
        let flags = if *irq < ISA_IRQS { CONFORMS } else { ACTIVE_HIGH_EDGE };
        push_interrupt(
            &mut table,
            [entry::IO_INTERRUPT, interrupt::INT],
            flags,
            [ISA, *irq, ioapic.id, *pin],
        );
    }
    // A PC's wiring: the 8259's output at LINT0, NMIs at LINT1.
    for (kind, lint) in [(interrupt::EXT_INT, 0), (interrupt::NMI, 1)] {
        let at = [ISA, 0, ALL_LOCAL_APICS, lint];
        push_interrupt(&mut table, [entry::LOCAL_INTERRUPT, kind], CONFORMS, at);
    }

    let (len, entries) = (table.len() as u16, (cpus.len() + 4 + interrupts.len()) as u16);
    table[..4].copy_from_slice(b"PCMP");
    table[4..6].copy_from_slice(&len.to_le_bytes());
    table[6] = SPEC_REVISION;
    table[8..28].copy_from_slice(&OEM_AND_PRODUCT);
    // From 28 on: no OEM table.
    table[34..36].copy_from_slice(&entries.to_le_bytes());
    table[36..40].copy_from_slice(&local_apic.to_le_bytes());
    // From 40 on: no extended table.
    table[7] = checksum(&table);
    table
}

fn push_cpu(table: &mut Vec<u8>, cpu: &Cpu, boots: bool) {
    let flags = if boots { ENABLED | BOOT_PROCESSOR } else { ENABLED };
    table.extend([entry::PROCESSOR, cpu.apic_id, cpu.version, flags]);
    table.extend(cpu.signature.to_le_bytes());
    table.extend(cpu.features.to_le_bytes());
    table.extend([0; 8]);
}

fn push_interrupt(table: &mut Vec<u8>, kinds: [u8; 2], flags: u16, at: [u8; 4]) {
    table.extend(kinds);
    table.extend(flags.to_le_bytes());
    table.extend(at);
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(apic_id: u8) -> Cpu {
        Cpu { apic_id, version: 0x14, signature: 0x600, features: 0x201 }
    }

    fn table(cpus: &[Cpu], interrupts: &[Interrupt]) -> MpTable {
        let ioapic = IoApic { id: 254, version: 0x11, address: 0xfec0_0000 };
        MpTable::new(&Description { cpus, local_apic: 0xfee0_0000, ioapic, interrupts }, 0xf_1230)
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Bytes derived by hand from the tables and figures of §4.
    #[test]
    fn table_of_two_processors_has_the_bytes_of_the_specification() {
        let table = table(&[cpu(0), cpu(4)], &[Interrupt { irq: 4, pin: 4 }, Interrupt { irq: 16, pin: 17 }]);
        #[rustfmt::skip]
        let pointer = [
            b'_', b'M', b'P', b'_', 0x40, 0x12, 0x0f, 0x00, 1, 4, table.bytes[10], 0, 0, 0, 0, 0,
        ];
        assert_eq!(table.pointer(), pointer);
        #[rustfmt::skip]
        let configuration = [
            // Length 132 = 44 + 2 * 20 + 6 * 8.
            &[b'P', b'C', b'M', b'P', 132, 0, 4, table.bytes[23]][..],
            b"VMM     VMM         ", &[0, 0, 0, 0, 0, 0], &[8, 0], &[0x00, 0x00, 0xe0, 0xfe], &[0, 0, 0, 0],
            &[0, 0, 0x14, 0b11, 0x00, 0x06, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 4, 0x14, 0b01, 0x00, 0x06, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, b'I', b'S', b'A', b' ', b' ', b' '],
            &[2, 254, 0x11, 1, 0x00, 0x00, 0xc0, 0xfe],
            &[3, 0, 0, 0, 0, 4, 254, 4],
            &[3, 0, 0b0101, 0, 0, 16, 254, 17],
            &[4, 3, 0, 0, 0, 0, 0xff, 0],
            &[4, 1, 0, 0, 0, 0, 0xff, 1],
        ].concat();
        assert_eq!(table.configuration(), configuration);
        assert_eq!((sum(table.pointer()), sum(table.configuration())), (0, 0));
    }

    proptest! {
        #[test]
        fn table_of_any_size_adds_up(cpus in 1_usize..=254, interrupts in 0_u8..=24) {
            let ids: Vec<Cpu> = (0..cpus).map(|index| cpu(index as u8)).collect();
            let lines: Vec<Interrupt> = (0..interrupts).map(|irq| Interrupt { irq, pin: irq }).collect();
            let table = table(&ids, &lines);
            // Plus a bus, an I/O APIC and two local interrupts.
            prop_assert_eq!(table.bytes().len(), 16 + 44 + 20 * cpus + 8 * (4 + lines.len()));
            let length = u16::from_le_bytes([table.configuration()[4], table.configuration()[5]]);
            prop_assert_eq!(usize::from(length), table.configuration().len());
            prop_assert_eq!((sum(table.pointer()), sum(table.configuration())), (0, 0));
            prop_assert_eq!(entries(table.configuration()), (cpus, 1, 1, lines.len(), 2));
        }
    }

    /// Counts the entries of each type up to the end of the table, as a kernel does.
    fn entries(table: &[u8]) -> (usize, usize, usize, usize, usize) {
        let mut counts = [0; 5];
        let mut rest = &table[HEADER_LEN..];
        while let [kind, ..] = *rest {
            counts[usize::from(kind)] += 1;
            rest = &rest[if kind == entry::PROCESSOR { 20 } else { 8 }..];
        }
        assert_eq!(counts.iter().sum::<usize>(), usize::from(u16::from_le_bytes([table[34], table[35]])));
        counts.into()
    }
}
