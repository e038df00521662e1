//! The machines that are rendered, which differ in their processors only.

use std::ops::Range;

use vmm_acpi::{
    Cpu, Description, Fragment, IoApic, Legacy, Override, Polarity, Power, Reset, Rtc, Tables, Trigger,
    io_device, mmio_device, motherboard, pci_root, render,
};

/// The area for the tables: the BIOS area.
pub(crate) const AREA: Range<u64> = 0xf_0000..0x10_0000;

/// `count` processors with APIC ids equal to their indices, so ids from 255 on exceed 8 bits.
pub(crate) fn cpus(count: u32) -> Vec<Cpu> {
    (0..count).map(|index| Cpu { uid: index, apic_id: index }).collect()
}

/// Devices of each kind: ports with and without an interrupt, two port ranges, memory-mapped registers.
pub(crate) fn devices() -> Vec<Fragment> {
    vec![
        io_device("COM1", "PNP0501", 0, [0x3f8..0x400], Some(4)).unwrap(),
        io_device("RTC", "PNP0B00", 0, [0x70..0x72], Some(8)).unwrap(),
        io_device("PS2", "PNP0303", 0, [0x60..0x61, 0x64..0x65], Some(1)).unwrap(),
        io_device("PEVT", "QEMU0001", 0, [0x505..0x506], None).unwrap(),
        mmio_device("VR00", "LNRO0005", 0, 0xd000_0000..0xd000_1000, 5).unwrap(),
        mmio_device("VR01", "LNRO0005", 1, 0xd000_1000..0xd000_2000, 23).unwrap(),
        pci_root(0xc010_0000..0xd000_0000).unwrap(),
        motherboard("MBRD", 0xc000_0000..0xc010_0000).unwrap(),
    ]
}

/// A description with every field set.
pub(crate) fn description<'a>(cpus: &'a [Cpu], devices: &'a [Fragment]) -> Description<'a> {
    Description {
        cpus,
        local_apic: 0xfee0_0000,
        nmi_on_lint1: true,
        ioapic: IoApic { id: 0, address: 0xfec0_0000, gsi_base: 0 },
        overrides: &[
            Override { irq: 0, gsi: 2, polarity: Polarity::Bus, trigger: Trigger::Bus },
            Override { irq: 9, gsi: 9, polarity: Polarity::ActiveHigh, trigger: Trigger::Level },
        ],
        power: Power {
            pm1_event_port: 0x600,
            pm1_control_port: 0x604,
            pm_timer_port: Some(0x608),
            sci: 9,
            reset: Reset { port: 0xcf9, value: 6 },
            s5_sleep_type: 5,
        },
        legacy: Legacy { isa_devices: true, i8042: false, rtc: Some(Rtc { century: 0x32 }) },
        devices,
        ecam: Some(0xc000_0000),
    }
}

/// The tables of a machine with `count` processors.
pub(crate) fn tables(count: u32) -> Tables {
    render(&description(&cpus(count), &devices()), AREA).unwrap()
}
