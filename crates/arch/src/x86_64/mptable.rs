//! The MP table, by which kernels without ACPI find processors and interrupts (Intel MultiProcessor Specification 1.4).
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

/// The boundary on which kernels search for the floating pointer structure (§4).
pub const ALIGNMENT: u64 = 16;
/// Length of the floating pointer structure (§4.1), which is followed by the configuration table here.
const POINTER_LEN: usize = 16;
/// Length of the configuration table's header (§4.2).
const HEADER_LEN: usize = 44;
/// The revision of the specification: 1.4 (§4.1, §4.2).
const SPEC_REVISION: u8 = 4;

/// Who made the table, 8 characters, and for which machine, 12 characters (§4.2).
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

/// Flags of a processor (§4.3.1): usable, and the one that boots.
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 1 << 1;
/// Flag of an I/O APIC (§4.3.3): usable.
const USABLE: u8 = 1;
/// Flags of an interrupt (§4.3.4): polarity and trigger mode as on the bus, which is active high and edge on ISA.
const CONFORMS: u16 = 0;
/// The same, said explicitly.
const ACTIVE_HIGH_EDGE: u16 = 0b01 | 0b01 << 2;

/// The only bus, to which all interrupts belong.
const ISA: u8 = 0;
/// How many interrupts ISA has.
const ISA_IRQS: u8 = 16;
/// The destination of a local interrupt: every local APIC (§4.3.5).
const ALL_LOCAL_APICS: u8 = 0xff;

/// How many APIC ids a table can give to processors, from 0 on: ids have 8 bits, 255 is all processors, and the I/O APIC's
/// must differ from each of theirs (§3.6.6).
pub const MAX_CPUS: u32 = 254;

/// A machine, as a kernel without ACPI has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The processors, the one that boots first; at most [`MAX_CPUS`], with distinct ids.
    pub cpus: &'a [Cpu],
    /// Guest-physical address of every processor's local APIC.
    pub local_apic: u32,
    /// The controller of the devices' interrupts.
    pub ioapic: IoApic,
    /// The interrupts, each at an input of the I/O APIC: rising edges, on the ISA bus. Numbers from 16 on, which no ISA bus
    /// has, are accepted by Linux as the numbers of its own interrupts.
    pub interrupts: &'a [Interrupt],
}

/// A processor (§4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Id of its local APIC.
    pub apic_id: u8,
    /// Version of its local APIC.
    pub version: u8,
    /// Family, model and stepping, as in EAX of CPUID leaf 1.
    pub signature: u32,
    /// Features, as in EDX of CPUID leaf 1.
    pub features: u32,
}

/// An I/O APIC (§4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its id, which isn't that of any processor's.
    pub id: u8,
    /// Its version.
    pub version: u8,
    /// Guest-physical address of its registers.
    pub address: u32,
}

/// Where an interrupt arrives (§4.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub irq: u8,
    /// The input of the I/O APIC.
    pub pin: u8,
}

/// The floating pointer structure, which kernels search for, and the configuration table, which follows it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpTable {
    gpa: u32,
    bytes: Vec<u8>,
}

impl MpTable {
    /// The table of the described machine for the guest-physical address `gpa`, a multiple of [`ALIGNMENT`] in the BIOS area.
    pub fn new(description: &Description<'_>, gpa: u32) -> Self {
        let configuration = configuration(description);
        let mut bytes = pointer(gpa + POINTER_LEN as u32).to_vec();
        bytes.extend(configuration);
        Self { gpa, bytes }
    }

    /// The guest-physical addresses that it occupies.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.gpa);
        start..start + self.bytes.len() as u64
    }

    /// Its bytes, from the floating pointer structure on.
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

/// §4.1. The feature bytes are 0: there is a configuration table, and no IMCR, which is "virtual wire mode" (§3.6.2.2).
fn pointer(configuration_at: u32) -> [u8; POINTER_LEN] {
    let mut pointer = [0; POINTER_LEN];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&configuration_at.to_le_bytes());
    // Its length in units of 16 bytes.
    pointer[8] = (POINTER_LEN / 16) as u8;
    pointer[9] = SPEC_REVISION;
    pointer[10] = checksum(&pointer);
    pointer
}

/// §4.2 and §4.3. Entries are in ascending order of type.
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
    // From 28 on: no table of an OEM's.
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

/// What makes the sum of all bytes 0.
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

    /// Each byte by hand from the tables and figures of §4.
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
            // A bus, an I/O APIC and two local interrupts beside them.
            prop_assert_eq!(table.bytes().len(), 16 + 44 + 20 * cpus + 8 * (4 + lines.len()));
            let length = u16::from_le_bytes([table.configuration()[4], table.configuration()[5]]);
            prop_assert_eq!(usize::from(length), table.configuration().len());
            prop_assert_eq!((sum(table.pointer()), sum(table.configuration())), (0, 0));
            prop_assert_eq!(entries(table.configuration()), (cpus, 1, 1, lines.len(), 2));
        }
    }

    /// How many entries of each type a kernel counts, which ends where the table does.
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
