//! The machine's MP table, for kernels that don't use ACPI.

use vmm_acpi::Tables;
use vmm_arch::layout;
use vmm_arch::mptable::{ALIGNMENT, Cpu, Description, Interrupt, IoApic, MAX_CPUS, MpTable};
use vmm_arch::topology::Topology;

/// Version of KVM's local APICs, as in their version register.
const LOCAL_APIC_VERSION: u8 = 0x14;
/// Version of KVM's IO-APIC, likewise; the 82093AA's.
const IOAPIC_VERSION: u8 = 0x11;
/// Family 6 with an FPU and a local APIC, as every x86-64 processor has at least. The plan doesn't know the host's processor, and
/// kernels use CPUID.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 1 << 9 | 1;

/// The MP table of a machine with these vCPUs, placed after its ACPI tables; `None` if these leave no room for it.
///
/// It lists the processors whose APIC ids are below [`MAX_CPUS`], and all interrupts of the IO-APIC: ISA's, then those for virtio
/// devices on the command line.
pub(crate) fn table(topology: Topology, acpi: &Tables) -> Option<MpTable> {
    let ids = (0..topology.count()).map(|index| topology.apic_id(index)).filter(|id| *id < MAX_CPUS);
    let ids: Vec<u8> = ids.map(|id| id as u8).collect();
    let cpu = |id: &u8| Cpu {
        apic_id: *id,
        version: LOCAL_APIC_VERSION,
        signature: CPU_SIGNATURE,
        features: CPU_FEATURES,
    };
    let description = Description {
        cpus: &ids.iter().map(cpu).collect::<Vec<_>>(),
        local_apic: layout::LOCAL_APIC as u32,
        ioapic: IoApic { id: free_id(&ids), version: IOAPIC_VERSION, address: layout::IOAPIC as u32 },
        interrupts: &interrupts(),
    };
    let acpi_end = acpi.iter().map(|table| table.range().end).max()?;
    let gpa = acpi_end.next_multiple_of(ALIGNMENT);
    let table = MpTable::new(&description, u32::try_from(gpa).ok()?);
    (table.range().end <= layout::ACPI_TABLES.end).then_some(table)
}

/// The lowest APIC id that no processor has.
fn free_id(taken: &[u8]) -> u8 {
    (0..=u8::MAX).find(|id| !taken.contains(id)).expect("at most 254 of 256 ids are taken")
}

/// Every IO-APIC pin except that of the 8259s' cascade, which no device uses.
fn interrupts() -> Vec<Interrupt> {
    let pins = (0..layout::IOAPIC_PINS).filter(|pin| *pin != layout::PIC_CASCADE_IRQ);
    pins.map(|pin| Interrupt { irq: pin as u8, pin: pin as u8 }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::legacy;
    use crate::platform::x86_64::acpi;

    fn table_of(topology: Topology) -> Option<MpTable> {
        table(topology, &acpi::tables(topology, legacy::acpi_of_a_pc(), &[]).unwrap())
    }

    /// The id and flags of each processor: the leading entries, of type 0 and 20 bytes.
    fn processors(table: &MpTable) -> Vec<(u8, u8)> {
        let entries = table.configuration()[44..].chunks(20).take_while(|entry| entry[0] == 0);
        entries.map(|entry| (entry[1], entry[3])).collect()
    }

    /// The entries after the processors, of 8 bytes each.
    fn others(table: &MpTable) -> Vec<[u8; 8]> {
        let configuration = &table.configuration()[44 + 20 * processors(table).len()..];
        configuration.chunks(8).map(|entry| entry.try_into().unwrap()).collect()
    }

    /// In the same order as in the ACPI tables.
    #[test]
    fn processors_have_the_apic_ids_of_the_topology_and_the_first_one_boots() {
        let table = table_of(Topology::new(1, 3, 2).unwrap()).unwrap();
        assert_eq!(processors(&table), [(0, 3), (1, 1), (2, 1), (4, 1), (5, 1), (6, 1)]);
    }

    #[test]
    fn ioapic_has_the_first_id_that_is_no_processors() {
        let ioapic = |topology| others(&table_of(topology).unwrap())[1];
        assert_eq!(ioapic(Topology::one_socket(2)), [2, 2, 0x11, 1, 0, 0, 0xc0, 0xfe]);
        assert_eq!(ioapic(Topology::new(1, 3, 2).unwrap())[1], 3);
    }

    /// KVM's default routes: a line's number is its pin's (Linux arch/x86/kvm/irq_comm.c, default_routing).
    #[test]
    fn interrupts_arrive_at_the_pin_of_their_number() {
        let others = others(&table_of(Topology::one_socket(1)).unwrap());
        let interrupts = others.iter().filter(|entry| entry[0] == 3);
        let lines: Vec<(u8, u8)> = interrupts.map(|entry| (entry[5], entry[7])).collect();
        let expected: Vec<(u8, u8)> = [0, 1].into_iter().chain(3..24).map(|pin| (pin, pin)).collect();
        assert_eq!(lines, expected);
    }

    /// More than 8-bit ids can number, with one left for the IO-APIC.
    #[test]
    fn processors_beyond_id_253_are_left_out() {
        let table = table_of(Topology::one_socket(300)).unwrap();
        let ids: Vec<u8> = processors(&table).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, Vec::from_iter(0..254));
        assert_eq!(others(&table)[1][1], 254, "the IO-APIC's id");
    }

    #[test]
    fn table_has_room_for_254_processors() {
        let table = table_of(Topology::one_socket(254)).unwrap();
        assert_eq!(processors(&table).len(), 254);
        assert_eq!(others(&table)[1][1], 254, "the IO-APIC's id");
    }

    proptest! {
        #[test]
        fn table_lies_after_the_acpi_tables_where_kernels_search(
            threads in 1_u16..=2, cores in 1_u16..=70, sockets in 1_u16..=4
        ) {
            let topology = Topology::new(threads, cores, sockets).unwrap();
            let acpi = acpi::tables(topology, legacy::acpi_of_a_pc(), &[]).unwrap();
            let range = table(topology, &acpi).unwrap().range();
            prop_assert!(acpi.iter().all(|table| table.range().end <= range.start));
            prop_assert!(range.start.is_multiple_of(16) && range.end <= 0x10_0000, "{range:x?}");
        }
    }

    /// The ACPI tables of 1,265 processors fill the area.
    #[test]
    fn table_that_has_no_room_after_the_acpi_tables_is_left_out() {
        assert!(table_of(Topology::one_socket(1100)).is_some());
        assert_eq!(table_of(Topology::one_socket(1265)), None);
    }
}
