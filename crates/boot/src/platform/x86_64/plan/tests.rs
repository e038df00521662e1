use vmm_arch::e820::E820Kind;

use super::*;
use crate::testing::{Part, bzimage, elf, inspected, patched, vmlinux};

/// A plan for `file` on `ram` bytes of RAM, with the kernel's default protocol.
fn plan(file: &[u8], ram: u64, initrd_len: Option<u64>) -> Result<BootPlan, PlanError> {
    let ram = layout::ram_ranges(ram);
    let image = inspected(file);
    BootPlan::new(&BootSpec { initrd_len, cmdline: "quiet", ..BootSpec::new(&image, &ram) })
}

fn complaint(file: &[u8], ram: u64, initrd_len: Option<u64>) -> String {
    plan(file, ram, initrd_len).unwrap_err().to_string()
}

fn with_protocol(file: &[u8], protocol: Protocol) -> Result<BootPlan, PlanError> {
    let image = inspected(file);
    let ram = layout::ram_ranges(8 << 20);
    let protocol = Some(protocol);
    BootPlan::new(&BootSpec { protocol, ..BootSpec::new(&image, &ram) })
}

fn with_cmdline(file: &[u8], cmdline: &str) -> Result<BootPlan, PlanError> {
    let image = inspected(file);
    let ram = layout::ram_ranges(8 << 20);
    BootPlan::new(&BootSpec { cmdline, ..BootSpec::new(&image, &ram) })
}

/// A kernel with one byte at `paddr`, and `mem_len` bytes in memory.
fn kernel_at(paddr: u64, mem_len: u64) -> Vec<u8> {
    elf(paddr, &[Part::Load { paddr, bytes: vec![0xcc], mem_len }])
}

#[test]
fn plan_of_an_elf_enters_by_pvh_and_spans_its_segments() {
    let plan = plan(&vmlinux(), 8 << 20, None).unwrap();
    assert_eq!(
        plan.entry(),
        EntryPoint { protocol: Protocol::Pvh, rip: 0x20_0040, params: layout::PVH_START_INFO }
    );
    assert_eq!(plan.kernel(), 0x20_0000..0x20_3000);
    assert_eq!((plan.initrd(), plan.cmdline()), (None, "quiet"));
}

#[test]
fn plan_of_a_bzimage_enters_0x200_into_it_and_spans_what_it_unpacks_into() {
    let plan = plan(&bzimage(), 8 << 20, None).unwrap();
    assert_eq!(
        plan.entry(),
        EntryPoint { protocol: Protocol::Linux64, rip: 0x10_0200, params: layout::ZERO_PAGE }
    );
    assert_eq!(plan.kernel(), 0x10_0000..0x30_0000);
}

#[test]
fn plan_with_a_protocol_takes_that() {
    let entry = with_protocol(&vmlinux(), Protocol::Linux64).unwrap().entry();
    assert_eq!(entry, EntryPoint { protocol: Protocol::Linux64, rip: 0x20_0000, params: layout::ZERO_PAGE });
    let entry = with_protocol(&bzimage(), Protocol::Linux32).unwrap().entry();
    assert_eq!(entry, EntryPoint { protocol: Protocol::Linux32, rip: 0x10_0000, params: layout::ZERO_PAGE });
}

#[test]
fn plan_with_a_protocol_that_is_not_offered_lists_those_that_are() {
    let error = with_protocol(&bzimage(), Protocol::Pvh).unwrap_err();
    assert_eq!(error.to_string(), "boot protocol pvh: this kernel offers only linux64 and linux32");
    let error = with_protocol(&vmlinux(), Protocol::Linux32).unwrap_err();
    assert_eq!(error.to_string(), "boot protocol linux32: this kernel offers only pvh and linux64");
}

#[test]
fn plan_puts_the_initrd_at_the_end_of_ram() {
    let plan = plan(&bzimage(), 8 << 20, Some(5000)).unwrap();
    // 8 MiB - 5000 is 0x7fec78; the page starts at 0x7fe000.
    assert_eq!(plan.initrd(), Some(0x7f_e000..0x7f_e000 + 5000));
}

#[test]
fn plan_puts_the_initrd_below_initrd_addr_max() {
    let image = patched(bzimage(), 0x22c, &0x4f_ffff_u32.to_le_bytes());
    assert_eq!(plan(&image, 8 << 20, Some(4096)).unwrap().initrd(), Some(0x4f_f000..0x50_0000));
}

#[test]
fn plan_puts_an_elfs_initrd_below_2_gib() {
    let plan = plan(&vmlinux(), 5 << 30, Some(4096)).unwrap();
    assert_eq!(plan.initrd(), Some(0x7fff_f000..0x8000_0000));
}

#[test]
fn plan_puts_the_initrd_below_the_mmio_gap_whatever_the_kernel_says() {
    let image = patched(bzimage(), 0x22c, &u32::MAX.to_le_bytes());
    assert_eq!(plan(&image, 5 << 30, Some(4096)).unwrap().initrd(), Some(0xbfff_f000..0xc000_0000));
}

#[test]
fn plan_initrd_that_fills_memory_to_the_last_byte_fits() {
    let plan = plan(&bzimage(), 8 << 20, Some(5 << 20)).unwrap();
    assert_eq!((plan.kernel().end, plan.initrd()), (0x30_0000, Some(0x30_0000..0x80_0000)));
}

#[test]
fn plan_initrd_one_byte_too_large_says_how_much_memory_would_do() {
    let expected = "an initrd of 5242881 bytes doesn't fit into the 5242880 bytes that are free behind \
                    the kernel; give the guest at least 9 MiB";
    assert_eq!(complaint(&bzimage(), 8 << 20, Some((5 << 20) + 1)), expected);
}

#[test]
fn plan_with_the_memory_that_the_message_asks_for_works() {
    assert!(plan(&bzimage(), 9 << 20, Some((5 << 20) + 1)).is_ok());
}

#[test]
fn plan_initrd_larger_than_the_space_below_its_limit_is_hopeless() {
    let expected = "an initrd of 4294967296 bytes doesn't fit between the end of the kernel at 0x300000 \
                    and 0x80000000, the highest address at which this kernel takes it; use a smaller one";
    assert_eq!(complaint(&bzimage(), 8 << 30, Some(4 << 30)), expected);
    let huge = plan(&bzimage(), 8 << 30, Some(u64::MAX)).unwrap_err();
    assert!(matches!(huge, PlanError::InitrdUnplaceable { len: u64::MAX, .. }));
}

#[test]
fn plan_initrd_shares_no_page_with_the_kernel() {
    // The kernel ends one byte after 2 MiB; RAM ends with that page.
    let file = kernel_at(0x10_0000, 0x10_0001);
    let expected = "an initrd of 1 bytes doesn't fit into the 0 bytes that are free behind the kernel; \
                    give the guest at least 3 MiB";
    assert_eq!(complaint(&file, 0x20_1000, Some(1)), expected);
}

#[test]
fn plan_initrd_empty_is_refused() {
    assert_eq!(complaint(&bzimage(), 8 << 20, Some(0)), "the initrd is empty");
}

#[test]
fn plan_kernel_larger_than_ram_says_how_much_would_do() {
    let expected = "the kernel needs memory up to 0x300000, but it ends at 0x200000; give the guest at \
                    least 3 MiB";
    assert_eq!(complaint(&bzimage(), 2 << 20, None), expected);
    assert!(plan(&bzimage(), 3 << 20, None).is_ok());
}

#[test]
fn plan_without_ram_is_refused() {
    let expected =
        "the kernel needs memory up to 0x300000, but it ends at 0x0; give the guest at least 3 MiB";
    let image = inspected(&bzimage());
    let spec = BootSpec::new(&image, &[]);
    assert_eq!(BootPlan::new(&spec).unwrap_err().to_string(), expected);
}

#[test]
fn plan_kernel_below_1_mib_is_refused() {
    let expected = "the kernel starts at 0x90000, below 1 MiB, where it is given its boot parameters";
    assert_eq!(complaint(&kernel_at(0x9_0000, 4096), 8 << 20, None), expected);
}

#[test]
fn plan_bzimage_loaded_below_1_mib_is_refused() {
    let expected = "the kernel starts at 0x10000, below 1 MiB, where it is given its boot parameters";
    assert_eq!(complaint(&patched(bzimage(), 0x214, &[0, 0, 1, 0]), 8 << 20, None), expected);
}

#[test]
fn plan_kernel_in_the_mmio_gap_is_refused() {
    let expected = "the kernel ends at 0xc0000001, beyond the start of the 32-bit MMIO gap at 0xc0000000";
    assert_eq!(complaint(&kernel_at(0xbfff_ffff, 2), 8 << 30, None), expected);
}

#[test]
fn plan_kernel_above_4_gib_is_refused() {
    let expected = "the kernel ends at 0x100001000, beyond the start of the 32-bit MMIO gap at 0xc0000000";
    assert_eq!(complaint(&kernel_at(0x1_0000_0000, 4096), 8 << 30, None), expected);
}

#[test]
fn plan_init_size_larger_than_any_memory_is_refused() {
    let image = patched(bzimage(), 0x260, &u32::MAX.to_le_bytes());
    let expected = "the kernel ends at 0x1001fffff, beyond the start of the 32-bit MMIO gap at 0xc0000000";
    assert_eq!(complaint(&image, 8 << 30, None), expected);
}

#[test]
fn plan_cmdline_limit_of_an_elf_is_2047() {
    assert!(with_cmdline(&vmlinux(), &"x".repeat(2047)).is_ok());
    let error = with_cmdline(&vmlinux(), &"x".repeat(2048)).unwrap_err();
    assert_eq!(error.to_string(), "command line: 2048 bytes; this kernel takes at most 2047");
}

#[test]
fn plan_cmdline_limit_of_a_bzimage_is_its_cmdline_size() {
    assert!(with_cmdline(&bzimage(), &"x".repeat(255)).is_ok());
    let error = with_cmdline(&bzimage(), &"x".repeat(256)).unwrap_err();
    assert_eq!(error.to_string(), "command line: 256 bytes; this kernel takes at most 255");
}

#[test]
fn plan_memory_map_of_too_many_pieces_is_refused() {
    let image = inspected(&bzimage());
    let ram: Vec<_> = (0..126).map(|n| n * (16 << 20)..n * (16 << 20) + (8 << 20)).collect();
    let spec = BootSpec::new(&image, &ram);
    assert_eq!(BootPlan::new(&spec).unwrap_err().to_string(), "a memory map of 129 entries; at most 128 fit");
}

/// A plan for a bzImage on 1 GiB of RAM with an initrd of 1 MiB and the 32-bit entry.
fn laid_out(boot_layout: BootLayout<'_>) -> Result<BootPlan, PlanError> {
    let (image, ram) = (inspected(&bzimage()), layout::ram_ranges(1 << 30));
    let (protocol, initrd_len) = (Some(Protocol::Linux32), Some(1 << 20));
    BootPlan::new(&BootSpec {
        protocol,
        initrd_len,
        cmdline: "quiet",
        layout: boot_layout,
        ..BootSpec::new(&image, &ram)
    })
}

fn layout_complaint(boot_layout: BootLayout<'_>) -> String {
    laid_out(boot_layout).unwrap_err().to_string()
}

/// The layout that many tutorials use: zero page at 0x10000, command line at 0x20000, initrd at 512 MiB, and
/// a memory map of two entries of RAM.
#[test]
fn layout_that_is_chosen_is_taken() {
    let entry = |addr, len| E820Entry { addr, len, kind: E820Kind::Ram };
    let e820 = [entry(0, 0x9_fc00), entry(0x10_0000, 0x3ff0_0000)];
    let boot_layout =
        BootLayout { zero_page: 0x1_0000, cmdline: 0x2_0000, initrd: Some(512 << 20), e820: Some(&e820) };
    let plan = laid_out(boot_layout).unwrap();
    assert_eq!(plan.e820(), e820);
    assert_eq!(plan.initrd(), Some(0x2000_0000..0x2010_0000));
    assert_eq!((plan.entry().params, plan.entry().regs().rsi), (0x1_0000, 0x1_0000));
    let placed = |what| plan.placements().into_iter().find(|p| p.what == what).unwrap().range;
    assert_eq!((placed("zero page"), placed("command line")), (0x1_0000..0x1_1000, 0x2_0000..0x2_0006));
}

#[test]
fn layout_with_two_things_at_one_place_is_refused() {
    let expected = "the command line at 0x20000..0x20006 overlaps the zero page at 0x20005..0x21005; choose another address \
                    for one of them";
    assert_eq!(layout_complaint(BootLayout { zero_page: 0x2_0005, ..Default::default() }), expected);
    let expected = "the kernel at 0x100000..0x300000 overlaps the initrd at 0x2ff000..0x3ff000; choose another address for \
                    one of them";
    assert_eq!(layout_complaint(BootLayout { initrd: Some(0x2f_f000), ..Default::default() }), expected);
}

#[test]
fn layout_outside_ram_is_refused() {
    let expected =
        "the zero page at 0x3ffff001..0x40000001 lies outside the guest's RAM; choose another address";
    assert_eq!(layout_complaint(BootLayout { zero_page: 0x3fff_f001, ..Default::default() }), expected);
    let expected = "the command line at 0xfffffffffffffffe..0xffffffffffffffff lies outside the guest's RAM; choose \
                    another address";
    assert_eq!(layout_complaint(BootLayout { cmdline: u64::MAX - 1, ..Default::default() }), expected);
}

#[test]
fn layout_with_an_initrd_that_the_kernel_does_not_take_is_refused() {
    let at = |initrd| layout_complaint(BootLayout { initrd: Some(initrd), ..Default::default() });
    assert_eq!(at(0x2000_0800), "the initrd is to start at 0x20000800; use a multiple of 0x1000");
    let expected = "the initrd at 0x7ff01000..0x80001000 ends beyond 0x80000000, the highest address at which this kernel \
                    takes it; put it lower";
    assert_eq!(at(0x7ff0_1000), expected);
}

#[test]
fn plan_display_of_a_bzimage_is_golden() {
    let expected = "\
kernel: bzImage, boot protocol 2.15, relocatable, unpacks to 0x200000, init_size 0x100000
entry: linux64 at 0x100200
command line: \"quiet\"
memory map:
  0x000000000..0x00009fc00 RAM
  0x00009fc00..0x0000a0000 reserved
  0x0000f0000..0x000100000 reserved
  0x000100000..0x000800000 RAM
placements:
  0x000000500..0x000000528 descriptor tables
  IDT
  0x000007000..0x000008000 zero page
  0x000009000..0x00000f000 page tables
  0x000020000..0x000020006 command line
  0x000100000..0x000300000 kernel
  0x0007ff000..0x000800000 initrd
";
    let idt = format!("{:#011x}..{:#011x} interrupt table", layout::IDT, layout::IDT + 8);
    let shown = plan(&bzimage(), 8 << 20, Some(4096)).unwrap().to_string();
    assert_eq!(shown, expected.replace("IDT", &idt));
}

#[test]
fn plan_placements_of_a_pvh_kernel_are_golden() {
    let placements = plan(&vmlinux(), 8 << 20, Some(4096)).unwrap().placements();
    let above_tables: Vec<_> = placements.into_iter().skip(2).map(|p| (p.what, p.range)).collect();
    let expected = [
        ("start info", 0x6000..0x6038),
        ("module list", 0x6040..0x6060),
        ("memory map", 0x6080..0x6080 + 4 * 24),
        ("command line", 0x2_0000..0x2_0006),
        ("kernel", 0x20_0000..0x20_3000),
        ("initrd", 0x7f_f000..0x80_0000),
    ];
    assert_eq!(above_tables, expected);
}
