//! Placement of the tables, and their references to each other.

use libtest_mimic::Trial;
use proptest::prelude::*;
use vmm_acpi::{Cpu, Fragment, Legacy, Override, Power, Rtc, io_device, mmio_device, render};

use crate::machine::{AREA, cpus, description, devices, tables};
use crate::reader::{number, sum, table, walk};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        every_table_is_found_from_the_rsdp,
        rsdp_has_two_checksums,
        every_table_has_its_checksum_and_length,
        facs_in_an_area_off_its_alignment_is_aligned,
        tables_in_an_area_of_exactly_their_size_fit,
        tables_of_1024_processors_and_100_devices_fit_64_kib,
        fadt_addresses_in_32_and_64_bits_agree,
        fadt_without_a_timer_has_no_timer_block,
        fadt_without_a_clock_says_so,
        fadt_with_an_i8042_says_so,
        dsdt_holds_what_devices_hand_over,
        good_description_renders_disjoint_tables,
        any_description_and_area_are_rendered_or_refused,
    ]
}

fn every_table_is_found_from_the_rsdp() {
    let tables = tables(4);
    let found = walk(&tables);
    let expected = tables.others.iter().map(|table| (table.name.to_owned(), table.gpa)).collect();
    assert_eq!(found, expected);
}

fn rsdp_has_two_checksums() {
    let rsdp = tables(1).rsdp.bytes;
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
}

fn every_table_has_its_checksum_and_length() {
    // All but the FACS, which has no checksum.
    let tables = tables(300);
    let sums: Vec<u8> = ["XSDT", "FACP", "APIC", "DSDT"].map(|name| sum(&table(&tables, name).bytes)).into();
    assert_eq!(sums, [0; 4]);
    assert!(tables.others.iter().all(|table| number::<4>(&table.bytes, 4) == table.bytes.len() as u64));
}

fn facs_in_an_area_off_its_alignment_is_aligned() {
    let tables = render(&description(&cpus(1), &devices()), 0xe_0010..0x10_0000).unwrap();
    assert_eq!(tables.rsdp.gpa, 0xe_0010);
    assert_eq!(table(&tables, "FACS").gpa, 0xe_0040);
}

fn tables_in_an_area_of_exactly_their_size_fit() {
    let end = tables(4).others.last().unwrap().range().end;
    assert!(render(&description(&cpus(4), &devices()), AREA.start..end).is_ok());
}

fn tables_of_1024_processors_and_100_devices_fit_64_kib() {
    let page = |index: u32| 0xd000_0000 + u64::from(index) * 0x1000;
    let devices: Vec<_> = (0..100)
        .map(|index| {
            let registers = page(index)..page(index + 1);
            mmio_device(&format!("VR{index:02}"), "LNRO0005", index, registers, 5 + index).unwrap()
        })
        .collect();
    assert!(render(&description(&cpus(1024), &devices), AREA).is_ok());
}

fn fadt_addresses_in_32_and_64_bits_agree() {
    let tables = tables(1);
    let fadt = &table(&tables, "FACP").bytes;
    // FIRMWARE_CTRL, DSDT, PM1a_EVT_BLK, PM1a_CNT_BLK and PM_TMR_BLK, each with its X_ field.
    let offsets = [(36, 132), (40, 140), (56, 148 + 4), (64, 172 + 4), (76, 208 + 4)];
    assert!(offsets.iter().all(|(short, long)| number::<4>(fadt, *short) == number::<8>(fadt, *long)));
}

/// The FADT of a machine modified by `change`.
fn fadt(change: impl FnOnce(&mut Power, &mut Legacy)) -> Vec<u8> {
    let (cpus, devices) = (cpus(1), devices());
    let mut description = description(&cpus, &devices);
    change(&mut description.power, &mut description.legacy);
    table(&render(&description, AREA).unwrap(), "FACP").bytes.clone()
}

fn fadt_without_a_timer_has_no_timer_block() {
    let fadt = fadt(|power, _| power.pm_timer_port = None);
    assert_eq!((number::<4>(&fadt, 76), fadt[91], &fadt[208..220]), (0, 0, &[0; 12][..]));
}

fn fadt_without_a_clock_says_so() {
    let fadt = fadt(|_, legacy| *legacy = Legacy::default());
    // VGA not present, CMOS RTC not present; no century.
    assert_eq!((number::<2>(&fadt, 109), fadt[108]), (0b10_0100, 0));
}

fn fadt_with_an_i8042_says_so() {
    let fadt = fadt(|_, legacy| {
        *legacy = Legacy { isa_devices: false, i8042: true, rtc: Some(Rtc { century: 0x37 }) };
    });
    // 8042, VGA not present.
    assert_eq!((number::<2>(&fadt, 109), fadt[108]), (0b110, 0x37));
}

fn dsdt_holds_what_devices_hand_over() {
    let tables = tables(1);
    let dsdt = &table(&tables, "DSDT").bytes;
    let handed_over: Vec<u8> = devices().iter().flat_map(|device| device.aml().to_vec()).collect();
    assert!(dsdt.ends_with(&handed_over), "in the order given, last in \\_SB");
}

fn good_description_renders_disjoint_tables() {
    let ids = proptest::collection::btree_set(0..600_u32, 0..300);
    let names = proptest::collection::btree_set("[A-Z][A-Z0-9]{0,2}", 0..20);
    // From the lowest area of at least 64 KiB to the highest.
    let starts = (0xe_0000 / 16)..=(0xf_0000_u64 / 16);
    proptest!(|(ids in ids, names in names, start in starts, irq in 0..16_u8, has_pci: bool)| {
        // The set is sorted, so no uid exceeds its APIC id, as in real machines.
        let cpus: Vec<_> =
            ids.into_iter().enumerate().map(|(uid, apic_id)| Cpu { uid: uid as u32, apic_id }).collect();
        let devices: Vec<_> =
            names.iter().map(|name| io_device(name, "PNP0501", 0, [1..9], None).unwrap()).collect();
        let mut description = description(&cpus, &devices);
        let source = Override { irq, ..description.overrides[0] };
        description.overrides = std::slice::from_ref(&source);
        description.ecam = has_pci.then_some(0xc000_0000);
        let tables = render(&description, start * 16..0x10_0000).unwrap();
        let ranges: Vec<_> = tables.iter().map(|table| table.range()).collect();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:x?}");
        prop_assert!(ranges[0].start == start * 16 && ranges.last().unwrap().end <= 0x10_0000);
        prop_assert_eq!(walk(&tables).len(), 5 + usize::from(has_pci));
    });
}

fn any_description_and_area_are_rendered_or_refused() {
    let cpu = (any::<u32>(), any::<u32>()).prop_map(|(uid, apic_id)| Cpu { uid, apic_id });
    let cpus = proptest::collection::vec(cpu, 0..4);
    let devices = proptest::collection::vec(("[A-Z]", proptest::collection::vec(any::<u8>(), 0..64)), 0..3);
    let numbers = any::<(u8, u8, u32, u16)>();
    proptest!(|(cpus in cpus, devices in devices, area: (u64, u64), numbers in numbers)| {
        let (s5, irq, gsi, port) = numbers;
        let devices: Vec<_> =
            devices.into_iter().map(|(name, aml)| Fragment::from_aml(&name, aml).unwrap()).collect();
        let mut description = description(&cpus, &devices);
        let source = Override { irq, gsi, ..description.overrides[0] };
        description.overrides = std::slice::from_ref(&source);
        description.power.s5_sleep_type = s5;
        description.power.pm1_event_port = port;
        description.power.reset.port = port;
        description.ioapic.gsi_base = gsi;
        // The test fails only if this panics.
        let _outcome = render(&description, area.0..area.1);
        let _outcome = render(&description, AREA);
    });
}
