use vmm_arch::flat::Tables;

use super::*;
use crate::platform::x86_64::flat::plan::FlatPlan;
use crate::platform::x86_64::flat::testing::{
    elf32, elf64, inspected, load, multiboot_elf, multiboot_header, multiboot_raw, pie64,
};

/// The error for `file` on 4 MiB of RAM, with `change` applied to the spec.
fn complaint(file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> String {
    complaint_on(4 << 20, file, change)
}

fn complaint_on(ram_len: u64, file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> String {
    let (image, ram) = (inspected(file), layout::ram_ranges(ram_len));
    let mut spec = FlatSpec::new(&image, &ram);
    change(&mut spec);
    FlatPlan::new(&spec).unwrap_err().to_string()
}

fn elf64_at(paddr: u64, mem_len: u64) -> Vec<u8> {
    elf64(2, paddr, &[load(paddr, 16, mem_len)])
}

#[test]
fn mode_real_of_an_elf_is_refused() {
    let expected = "boot.flat.mode \"real\": an ELF is started in \"protected\", \"paged\" or \"long\" mode";
    let said = complaint(&elf64_at(0x10_0000, 16), |spec| spec.mode = Some(Mode::Real));
    assert_eq!(said, expected);
}

#[test]
fn mode_long_of_a_multiboot_image_is_refused() {
    let expected = "boot.flat.mode \"long\": a multiboot image is started in \"protected\" mode; remove the setting, or \
                    set boot.flat.format to \"raw\" if it only looks like one";
    assert_eq!(complaint(&multiboot_elf(0), |spec| spec.mode = Some(Mode::Long)), expected);
}

#[test]
fn mode_of_an_elf_may_be_any_with_32_or_64_bits() {
    let (image, ram) = (inspected(&elf64_at(0x10_0000, 16)), layout::ram_ranges(4 << 20));
    let mode = |mode| FlatPlan::new(&FlatSpec { mode: Some(mode), ..FlatSpec::new(&image, &ram) }).is_ok();
    assert!(mode(Mode::Protected) && mode(Mode::Paged) && mode(Mode::Long));
}

#[test]
fn load_address_of_an_executable_is_refused() {
    let expected = "boot.flat.load_address: an executable says itself where it goes; remove the setting";
    let said = complaint(&elf64_at(0x10_0000, 16), |spec| spec.load_address = Some(0x20_0000));
    assert_eq!(said, expected);
    assert_eq!(complaint(&multiboot_elf(0), |spec| spec.load_address = Some(0x20_0000)), expected);
}

#[test]
fn load_address_of_multiboot_addresses_is_refused() {
    let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0, 0x10_0020], 100);
    let expected = "boot.flat.load_address: a multiboot header with addresses says itself where it goes; \
                    remove the setting";
    assert_eq!(complaint(&file, |spec| spec.load_address = Some(0x20_0000)), expected);
}

#[test]
fn load_address_of_a_position_independent_executable_inside_a_page_is_refused() {
    let expected = "boot.flat.load_address 0x100800: a position-independent executable is loaded at a \
                    multiple of 0x1000";
    assert_eq!(complaint(&pie64(&[], &[]), |spec| spec.load_address = Some(0x10_0800)), expected);
}

#[test]
fn load_address_in_the_mmio_gap_is_refused() {
    let expected = "boot.flat.load_address 0xd0000000 lies in the 32-bit MMIO gap \
                    0xc0000000..0x100000000; use one below it";
    assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0xd000_0000)), expected);
    assert_eq!(complaint_on(8 << 30, b"\xf4", |spec| spec.load_address = Some(0xd000_0000)), expected);
}

#[test]
fn load_address_above_4_gib_is_refused() {
    let expected = "boot.flat.load_address 0x100000000 lies above 4 GiB; use one below the 32-bit MMIO gap \
                    at 0xc0000000";
    assert_eq!(complaint_on(8 << 30, b"\xf4", |spec| spec.load_address = Some(1 << 32)), expected);
}

#[test]
fn load_address_outside_memory_is_refused() {
    let expected = "boot.flat.load_address 0x400000 lies outside the guest's memory, which ends at \
                    0x400000; use one below that";
    assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0x40_0000)), expected);
}

#[test]
fn image_larger_than_memory_says_how_much_would_do() {
    let expected = "the image needs 4194305 bytes, but the guest's memory below the 32-bit MMIO gap has \
                    4194304; give the guest at least 5 MiB";
    assert_eq!(complaint(&vec![0; (4 << 20) + 1], |_| {}), expected);
}

#[test]
fn image_larger_than_any_memory_is_hopeless() {
    // A position-independent executable with a BSS of 4 GiB.
    let file = elf64(3, 0, &[load(0, 16, 1 << 32)]);
    let expected = "the image needs 4294967296 bytes, but the guest's memory below the 32-bit MMIO gap has \
                    4194304; no guest has more than 3221225472 there, so use a smaller one";
    assert_eq!(complaint(&file, |_| {}), expected);
}

#[test]
fn image_that_ends_beyond_memory_says_how_much_would_do() {
    let expected = "the image at 0x3fffff..0x400001 ends beyond the guest's memory, which ends at 0x400000; \
                    give the guest at least 5 MiB";
    assert_eq!(complaint(b"\xf4\xf4", |spec| spec.load_address = Some(0x3f_ffff)), expected);
}

#[test]
fn image_that_reaches_into_the_mmio_gap_is_refused() {
    let expected = "the image at 0xbffff000..0xc0000001 reaches into the 32-bit MMIO gap \
                    0xc0000000..0x100000000; link it elsewhere";
    assert_eq!(complaint_on(8 << 30, &elf64_at(0xbfff_f000, 0x1001), |_| {}), expected);
    let expected = "the image at 0xbfffffff..0xc0000001 reaches into the 32-bit MMIO gap \
                    0xc0000000..0x100000000; load it elsewhere (boot.flat.load_address)";
    let said = complaint_on(8 << 30, b"\xf4\xf4", |spec| spec.load_address = Some(0xbfff_ffff));
    assert_eq!(said, expected);
}

#[test]
fn image_above_4_gib_is_refused() {
    let expected = "the image at 0x100000000..0x100000010 lies above 4 GiB, but has to lie below the 32-bit \
                    MMIO gap at 0xc0000000; link it elsewhere";
    assert_eq!(complaint_on(8 << 30, &elf64_at(1 << 32, 16), |_| {}), expected);
}

#[test]
fn image_without_ram_is_refused() {
    let image = inspected(b"\xf4");
    let expected = "the image needs 1 bytes, but the guest's memory below the 32-bit MMIO gap has 0; give \
                    the guest at least 4 KiB";
    assert_eq!(FlatPlan::new(&FlatSpec::new(&image, &[])).unwrap_err().to_string(), expected);
}

#[test]
fn image_over_the_tables_makes_them_move() {
    let tables = |file: &[u8], mode, load_address| {
        let (image, ram) = (inspected(file), layout::ram_ranges(4 << 20));
        let spec = FlatSpec { mode: Some(mode), load_address, ..FlatSpec::new(&image, &ram) };
        FlatPlan::new(&spec).unwrap().start().tables
    };
    let written = |gdt, idt, page_tables| Tables::Written { gdt, idt, page_tables };
    // Overlaps the first byte of the GDT, the last page of the page tables, the last byte of the page
    // directory.
    assert_eq!(tables(&[0xf4; 0x101], Mode::Protected, Some(0x400)), written(0x510, 0x540, 0x9000));
    assert_eq!(tables(&elf64_at(0xe000, 16), Mode::Long, None), written(0x500, 0x530, 0x1000));
    assert_eq!(tables(&elf64_at(0x9fff, 16), Mode::Paged, None), written(0x500, 0x530, 0x1000));
}

/// The stack's memory counts as taken.
#[test]
fn stack_in_the_page_tables_makes_them_move() {
    let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(4 << 20));
    let spec = FlatSpec { mode: Some(Mode::Long), stack: Some(0xa000), ..FlatSpec::new(&image, &ram) };
    let expected = Tables::Written { gdt: 0x500, idt: 0x530, page_tables: 0x1000 };
    assert_eq!(FlatPlan::new(&spec).unwrap().start().tables, expected);
}

#[test]
fn image_over_the_multiboot_information_is_refused() {
    let mut text = load(0x5000, 64, 64);
    text.bytes[..12].copy_from_slice(&multiboot_header(0));
    let expected = "the image at 0x5000..0x5040 overlaps the multiboot information at 0x5000..0x5074; link \
                    it elsewhere";
    assert_eq!(complaint(&elf32(2, 0x500c, &[text]), |_| {}), expected);
}

#[test]
fn entry_outside_the_image_is_refused() {
    let expected = "boot.flat.entry 0x10 lies outside the image's bytes at 0x0..0x10";
    assert_eq!(complaint(&[0xf4; 16], |spec| spec.entry = Some(0x10)), expected);
}

#[test]
fn entry_in_the_bss_is_outside_the_image() {
    let file = elf64(2, 0x10_0000, &[load(0x10_0000, 16, 4096), load(0x20_0000, 4, 4)]);
    let expected = "boot.flat.entry 0x100010 lies outside the image's bytes at 0x100000..0x100010, \
                    0x200000..0x200004";
    assert_eq!(complaint(&file, |spec| spec.entry = Some(0x10_0010)), expected);
}

#[test]
fn entry_of_an_elf_outside_its_segments_is_refused() {
    let file = elf64(2, 0x20_0000, &[load(0x10_0000, 16, 16)]);
    let expected = "the image's own entry 0x200000 lies outside its bytes at 0x100000..0x100010; set \
                    boot.flat.entry";
    assert_eq!(complaint(&file, |_| {}), expected);
}

#[test]
fn entry_that_is_set_replaces_one_that_leads_nowhere() {
    let file = elf64(2, 0x20_0000, &[load(0x10_0000, 16, 16)]);
    let (image, ram) = (inspected(&file), layout::ram_ranges(4 << 20));
    let plan = FlatPlan::new(&FlatSpec { entry: Some(0x10_0008), ..FlatSpec::new(&image, &ram) }).unwrap();
    assert_eq!(plan.start().entry, 0x10_0008);
}

#[test]
fn entry_of_multiboot_addresses_outside_what_is_loaded_is_refused() {
    let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0, 0x10_0064], 100);
    let expected = "the image's own entry 0x100064 lies outside its bytes at 0x100000..0x100064; set \
                    boot.flat.entry";
    assert_eq!(complaint(&file, |_| {}), expected);
}

#[test]
fn entry_above_1_mib_in_real_mode_is_refused() {
    let expected = "the entry 0x100000 is above 1 MiB, out of reach in \"real\" mode; start the image below \
                    0x100000";
    assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0x10_0000)), expected);
}

#[test]
fn stack_at_the_end_of_ram_is_taken() {
    let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(4 << 20));
    let spec = FlatSpec { mode: Some(Mode::Long), stack: Some(4 << 20), ..FlatSpec::new(&image, &ram) };
    assert_eq!(FlatPlan::new(&spec).unwrap().start().stack, 4 << 20);
}

#[test]
fn stack_outside_ram_is_refused() {
    let expected = "boot.flat.stack 0x400001 lies outside the RAM at 0x0..0x400000; use an address in it or \
                    its end";
    let said = complaint(b"\xf4", |spec| {
        (spec.mode, spec.stack) = (Some(Mode::Long), Some((4 << 20) + 1));
    });
    assert_eq!(said, expected);
}

#[test]
fn stack_0_is_refused() {
    let expected =
        "boot.flat.stack 0x0 lies outside the RAM at 0x0..0x400000; use an address in it or its end";
    assert_eq!(complaint(b"\xf4", |spec| spec.stack = Some(0)), expected);
}

#[test]
fn stack_above_64_kib_in_real_mode_is_refused() {
    let expected = "boot.flat.stack 0x10001 is out of reach in \"real\" mode; use at most 0x10000";
    assert_eq!(complaint(b"\xf4", |spec| spec.stack = Some(0x1_0001)), expected);
}

#[test]
fn stack_by_default_inside_the_image_is_refused() {
    let expected =
        "the image at 0x0..0x10000 covers the default stack at 0x80f0..0x8ff0; set boot.flat.stack (--stack)";
    assert_eq!(complaint(&[0; 0x1_0000], |_| {}), expected);
}

#[test]
fn stack_by_default_ends_with_a_small_ram() {
    let stack = |ram_len| {
        let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(ram_len));
        FlatPlan::new(&FlatSpec::new(&image, &ram)).unwrap().start().stack
    };
    assert_eq!((stack(0x1000), stack(0x8000), stack(0x9000)), (0x1000, 0x8000, 0x8ff0));
}

#[test]
fn stack_by_default_in_a_page_that_the_image_fills_is_its_end() {
    let (image, ram) = (inspected(&[0xf4; 0x1000]), layout::ram_ranges(0x1000));
    assert_eq!(FlatPlan::new(&FlatSpec::new(&image, &ram)).unwrap().start().stack, 0x1000);
}

/// Its information structure would be at 0x5000.
#[test]
fn image_multiboot_in_16_kib_is_refused() {
    let file = multiboot_raw(0, [0x1000, 0x1000, 0, 0, 0x1020], 100);
    let expected = "the multiboot information at 0x5000..0x5074 lies beyond the guest's memory, which ends at 0x4000; \
                    give the guest at least 24 KiB";
    assert_eq!(complaint_on(0x4000, &file, |_| {}), expected);
}

#[test]
fn reset_image_of_more_than_1_mib_is_refused() {
    let expected =
        "the image has 1048577 bytes; in \"reset\" mode it ends at or below 1 MiB and has at most 1048576";
    assert_eq!(complaint(&vec![0; 0x10_0001], |spec| spec.mode = Some(Mode::Reset)), expected);
}

#[test]
fn reset_image_without_the_reset_vector_is_refused() {
    let expected = "the image at 0xfffef..0xffff0 doesn't contain 0xffff0, where the processor starts in \
                    \"reset\" mode; link it so that its first jump is 16 bytes before the end of a page, or load it \
                    where that comes to lie at 0xffff0 (boot.flat.load_address, --load-address)";
    let said = complaint(b"\xf4", |spec| {
        (spec.mode, spec.load_address) = (Some(Mode::Reset), Some(0xf_ffef));
    });
    assert_eq!(said, expected);
}

/// Rounded down to a page, it would end far below the reset vector.
#[test]
fn reset_image_of_less_than_a_page_has_to_be_given_its_place() {
    let expected = "the image at 0xff000..0xff020 doesn't contain 0xffff0, where the processor starts in \
                    \"reset\" mode; link it so that its first jump is 16 bytes before the end of a page, or load it \
                    where that comes to lie at 0xffff0 (boot.flat.load_address, --load-address)";
    assert_eq!(complaint(&[0xf4; 0x20], |spec| spec.mode = Some(Mode::Reset)), expected);
    let (image, ram) = (inspected(&[0xf4; 0x20]), layout::ram_ranges(1 << 20));
    let named =
        FlatSpec { mode: Some(Mode::Reset), load_address: Some(0xf_ffe0), ..FlatSpec::new(&image, &ram) };
    assert!(FlatPlan::new(&named).is_ok());
}

#[test]
fn reset_image_in_less_than_1_mib_is_refused() {
    let expected = "the image at 0xff000..0x100000 ends beyond the guest's memory, which ends at 0x80000; \
                    give the guest at least 1 MiB";
    let said = complaint_on(0x8_0000, &[0; 0x1000], |spec| spec.mode = Some(Mode::Reset));
    assert_eq!(said, expected);
}

#[test]
fn reset_entry_and_stack_are_refused() {
    let reset = |change: fn(&mut FlatSpec<'_>)| {
        complaint(&[0; 0x1000], |spec| {
            spec.mode = Some(Mode::Reset);
            change(spec);
        })
    };
    let expected = "boot.flat.entry: in \"reset\" mode the processor starts at its reset vector; remove the \
                    setting";
    assert_eq!(reset(|spec| spec.entry = Some(0xf_fff0)), expected);
    let expected = "boot.flat.stack: in \"reset\" mode the program sets its own stack; remove the setting";
    assert_eq!(reset(|spec| spec.stack = Some(0x1000)), expected);
}
