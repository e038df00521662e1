//! What the machine says of itself in ACPI tables.

use vmm_acpi::{
    Cpu, Description, IoApic, Legacy, Override, Polarity, Power, Reset, Rtc, Tables, Trigger, io_device,
    render,
};
use vmm_arch::layout;
use vmm_devices::PowerManagement;

use crate::Error;

/// The command that makes the i8042 reset the machine, and the port for it.
const RESET: Reset = Reset { port: layout::I8042.start as u16 + 4, value: 0xfe };
/// Id of the IO-APIC. Local APICs have their own ids, from 0 on.
const IOAPIC_ID: u8 = 0;

/// The tables of a machine with so many vCPUs, whose APIC ids are their numbers.
pub(crate) fn tables(vcpus: u32) -> Result<Tables, Error> {
    let cpus: Vec<Cpu> = (0..vcpus).map(|index| Cpu { uid: index, apic_id: index }).collect();
    let sci = layout::SCI_IRQ as u8;
    let com1 = io_device("COM1", "PNP0501", 0, &[ports(layout::COM1)], Some(layout::COM1_IRQ))?;
    let rtc = io_device("RTC0", "PNP0B00", 0, &[ports(layout::RTC)], None)?;
    let pvpanic = io_device("PEVT", "QEMU0001", 0, &[ports(layout::PVPANIC)], None)?;
    let description = Description {
        cpus: &cpus,
        local_apic: layout::LOCAL_APIC as u32,
        nmi_on_lint1: true,
        ioapic: IoApic { id: IOAPIC_ID, address: layout::IOAPIC as u32, gsi_base: 0 },
        // Our line is an eventfd, which is an edge; kernels would take the SCI for a level.
        overrides: &[Override {
            irq: sci,
            gsi: layout::SCI_IRQ,
            polarity: Polarity::ActiveHigh,
            trigger: Trigger::Edge,
        }],
        power: Power {
            pm1_event_port: layout::PM1.start as u16,
            pm1_control_port: layout::PM1.start as u16 + 4,
            pm_timer_port: None,
            sci,
            reset: RESET,
            s5_sleep_type: PowerManagement::SOFT_OFF,
        },
        // The i8042 is a reset line and no keyboard controller: nobody shall probe it.
        legacy: Legacy { isa_devices: true, i8042: false, rtc: Some(Rtc::default()) },
        devices: &[com1, rtc, pvpanic],
    };
    Ok(render(&description, layout::ACPI_TABLES)?)
}

fn ports(ports: std::ops::Range<u64>) -> std::ops::Range<u16> {
    ports.start as u16..ports.end as u16
}
