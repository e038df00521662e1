//! Descriptions and areas that are refused, and their error messages.

use std::ops::Range;

use libtest_mimic::Trial;
use vmm_acpi::{Cpu, Error, Fragment, Override, io_device, render};

use crate::machine::{AREA, cpus, description, devices};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        area_off_a_boundary_of_16_bytes_is_refused,
        area_below_what_is_searched_is_refused,
        area_past_1_mib_is_refused,
        area_that_runs_backwards_is_refused,
        area_that_is_too_small_names_the_sizes,
        area_too_small_for_4096_processors_is_refused,
        more_processors_than_names_are_refused,
        short_apic_id_with_a_long_uid_is_refused,
        broadcast_apic_id_is_refused,
        broadcast_uid_is_refused,
        two_processors_with_one_uid_are_refused,
        two_processors_with_one_apic_id_are_refused,
        override_of_an_interrupt_that_isnt_isa_is_refused,
        two_overrides_of_one_interrupt_are_refused,
        sleep_type_of_four_bits_is_refused,
        two_devices_of_one_name_are_refused,
        device_named_like_the_processors_is_refused,
    ]
}

fn refusal_of_area(area: Range<u64>) -> Error {
    render(&description(&cpus(4), &devices()), area).unwrap_err()
}

fn refusal_of_cpus(cpus: &[Cpu]) -> Error {
    render(&description(cpus, &[]), AREA).unwrap_err()
}

fn refusal_of_overrides(irqs: &[u8]) -> Error {
    let (cpus, devices) = (cpus(1), devices());
    let mut description = description(&cpus, &devices);
    let overrides: Vec<Override> =
        irqs.iter().map(|irq| Override { irq: *irq, ..description.overrides[0] }).collect();
    description.overrides = &overrides;
    render(&description, AREA).unwrap_err()
}

fn refusal_of_devices(devices: &[Fragment]) -> Error {
    render(&description(&cpus(1), devices), AREA).unwrap_err()
}

fn area_off_a_boundary_of_16_bytes_is_refused() {
    let expected = "area 0xf0008..0x100000 for ACPI tables: must start at a multiple of 16 and lie in \
                    0xe0000..0x100000";
    assert_eq!(refusal_of_area(0xf_0008..0x10_0000).to_string(), expected);
}

fn area_below_what_is_searched_is_refused() {
    let area = 0xd_0000..0xe_0000;
    assert_eq!(refusal_of_area(area.clone()), Error::Area { area });
}

fn area_past_1_mib_is_refused() {
    let area = 0xf_0000..0x10_0001;
    assert_eq!(refusal_of_area(area.clone()), Error::Area { area });
}

fn area_that_runs_backwards_is_refused() {
    let area = Range { start: 0xf_0000, end: 0xe_0000 };
    assert_eq!(refusal_of_area(area.clone()), Error::Area { area });
}

fn area_that_is_too_small_names_the_sizes() {
    let expected = "area 0xf0000..0xf0400 has 1024 bytes, the ACPI tables of 4 processors and 8 devices need \
                    1356 (DSDT 697, MADT 114)";
    assert_eq!(refusal_of_area(0xf_0000..0xf_0400).to_string(), expected);
}

fn area_too_small_for_4096_processors_is_refused() {
    let error = render(&description(&cpus(4096), &[]), 0xe_0000..0x10_0000).unwrap_err();
    assert!(matches!(error, Error::NoRoom { cpus: 4096, .. }), "{error}");
}

fn more_processors_than_names_are_refused() {
    let expected = "4097 processors: ACPI tables name at most 4096";
    assert_eq!(refusal_of_cpus(&cpus(4097)).to_string(), expected);
}

fn short_apic_id_with_a_long_uid_is_refused() {
    let error = refusal_of_cpus(&[Cpu { uid: 255, apic_id: 254 }]);
    let expected = "processor with uid 255 and APIC id 254: an APIC id below 255 needs a uid below 255, and \
                    0xffffffff means all processors";
    assert_eq!(error.to_string(), expected);
}

fn broadcast_apic_id_is_refused() {
    let error = refusal_of_cpus(&[Cpu { uid: 0, apic_id: u32::MAX }]);
    assert_eq!(error, Error::CpuNumbers { uid: 0, apic_id: u32::MAX });
}

fn broadcast_uid_is_refused() {
    let error = refusal_of_cpus(&[Cpu { uid: u32::MAX, apic_id: 255 }]);
    assert_eq!(error, Error::CpuNumbers { uid: u32::MAX, apic_id: 255 });
}

fn two_processors_with_one_uid_are_refused() {
    let error = refusal_of_cpus(&[Cpu { uid: 3, apic_id: 0 }, Cpu { uid: 3, apic_id: 1 }]);
    assert_eq!(error.to_string(), "two processors have the uid 3");
}

fn two_processors_with_one_apic_id_are_refused() {
    let error = refusal_of_cpus(&[Cpu { uid: 0, apic_id: 7 }, Cpu { uid: 1, apic_id: 7 }]);
    assert_eq!(error.to_string(), "two processors have the APIC id 7");
}

fn override_of_an_interrupt_that_isnt_isa_is_refused() {
    assert_eq!(
        refusal_of_overrides(&[16]).to_string(),
        "override of interrupt 16: ISA interrupts are 0 to 15"
    );
}

fn two_overrides_of_one_interrupt_are_refused() {
    assert_eq!(refusal_of_overrides(&[9, 0, 9]).to_string(), "two overrides of interrupt 9");
}

fn sleep_type_of_four_bits_is_refused() {
    let cpus = cpus(1);
    let mut description = description(&cpus, &[]);
    description.power.s5_sleep_type = 8;
    let error = render(&description, AREA).unwrap_err();
    assert_eq!(error.to_string(), "sleep type 8 of state S5: must be 0 to 7");
}

fn two_devices_of_one_name_are_refused() {
    // Equal once padded.
    let first = io_device("RTC", "PNP0B00", 0, [], None).unwrap();
    let second = io_device("RTC_", "PNP0B00", 1, [], None).unwrap();
    assert_eq!(refusal_of_devices(&[first, second]).to_string(), "two devices are called \"RTC_\"");
}

fn device_named_like_the_processors_is_refused() {
    let device = Fragment::from_aml("CPUS", vec![]).unwrap();
    assert_eq!(refusal_of_devices(&[device]), Error::DuplicateName { name: "CPUS".to_owned() });
}
