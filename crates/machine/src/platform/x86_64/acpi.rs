//! The machine's ACPI tables.

use vmm_acpi::{Cpu, Description, IoApic, Legacy, Power, Tables, render};
use vmm_arch::layout;
use vmm_arch::topology::Topology;
use vmm_devices::AcpiParts;

use crate::{Error, VirtioPlan, virtio};

/// The IO-APIC's id, which is independent of the local APICs' ids.
const IOAPIC_ID: u8 = 0;

/// The tables of a machine with these vCPUs and devices. A vCPU's ACPI processor UID is its index.
pub(crate) fn tables(topology: Topology, legacy: AcpiParts, virtio: &[VirtioPlan]) -> Result<Tables, Error> {
    let cpu = |index| Cpu { uid: index, apic_id: topology.apic_id(index) };
    let cpus: Vec<Cpu> = (0..topology.count()).map(cpu).collect();
    let AcpiParts { mut devices, overrides, power, reset, rtc } = legacy;
    let (power, reset) = power.zip(reset).ok_or(Error::NoFixedHardware)?;
    devices.extend(virtio::acpi(virtio)?);
    let description = Description {
        cpus: &cpus,
        local_apic: layout::LOCAL_APIC as u32,
        nmi_on_lint1: true,
        ioapic: IoApic { id: IOAPIC_ID, address: layout::IOAPIC as u32, gsi_base: 0 },
        overrides: &overrides,
        power: Power {
            pm1_event_port: power.pm1_event_port,
            pm1_control_port: power.pm1_control_port,
            pm_timer_port: None,
            sci: power.sci,
            reset,
            s5_sleep_type: power.s5_sleep_type,
        },
        legacy: Legacy { isa_devices: true, i8042: false, rtc },
        devices: &devices,
        ecam: virtio::has_pci(virtio).then_some(layout::PCI_ECAM),
    };
    Ok(render(&description, layout::ACPI_TABLES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy;

    fn table(cores: u16, name: &str) -> Vec<u8> {
        table_of(Topology::one_socket(cores), name)
    }

    fn table_of(topology: Topology, name: &str) -> Vec<u8> {
        tables(topology, legacy::acpi_of_a_pc(), &[])
            .unwrap()
            .iter()
            .find(|table| table.name == name)
            .unwrap()
            .bytes
            .clone()
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// ACPI 6.5 table 5.9.
    #[test]
    fn fadt_names_the_ports_of_the_devices() {
        let fadt = table(1, "FACP");
        assert_eq!(u16::from_le_bytes([fadt[46], fadt[47]]), 9, "SCI_INT");
        assert_eq!(u32_at(&fadt, 48), 0, "SMI_CMD: always in ACPI mode");
        assert_eq!((u32_at(&fadt, 56), u32_at(&fadt, 64)), (0x600, 0x604), "PM1a_EVT_BLK, PM1a_CNT_BLK");
        // RESET_REG: one byte in I/O space at 0x64, and RESET_VALUE.
        assert_eq!((fadt[116], u32_at(&fadt, 120), fadt[128]), (1, 0x64, 0xfe));
    }

    /// The UID, id and flags of every local APIC in the MADT (ACPI 6.5 §5.2.12: entries with a type and a length, from offset
    /// 44).
    fn local_apics(topology: Topology) -> Vec<(u8, u8, u8)> {
        let madt = table_of(topology, "APIC");
        let mut entries = &madt[44..];
        let mut ids = Vec::new();
        while let [kind, len, ..] = *entries {
            let (entry, rest) = entries.split_at(len.into());
            // Local APIC: UID, id, and flags with "enabled".
            ids.extend((kind == 0).then(|| (entry[2], entry[3], entry[4])));
            entries = rest;
        }
        ids
    }

    #[test]
    fn madt_has_a_local_apic_for_each_vcpu() {
        assert_eq!(local_apics(Topology::one_socket(3)), [(0, 0, 1), (1, 1, 1), (2, 2, 1)]);
    }

    #[test]
    fn madt_has_the_apic_ids_of_the_topology() {
        let topology = Topology::new(1, 3, 2).unwrap();
        let ids: Vec<u8> = local_apics(topology).into_iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids, [0, 1, 2, 4, 5, 6]);
    }

    #[test]
    fn dsdt_has_the_devices_that_kernels_look_for() {
        let dsdt = table(1, "DSDT");
        let has = |text: &str| dsdt.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(["COM1", "RTC0", "PEVT", "QEMU0001", "_S5_"].into_iter().all(has));
    }
}
