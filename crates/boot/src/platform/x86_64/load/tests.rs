use std::fs::OpenOptions;
use std::io::{Cursor, SeekFrom, Write};

use vm_memory::GuestMemoryBackend;
use vmm_memory::GuestRam;

use super::*;
use vmm_arch::e820::{E820Entry, E820Kind};

use crate::platform::x86_64::plan::{BootLayout, BootSpec};
use crate::testing::{Part, ShortReads, bzimage, elf, inspected, patched, vmlinux};

const RAM_LEN: u64 = 8 << 20;

/// Plans `file` with an initrd of `initrd_len` bytes on 8 MiB of RAM.
fn plan(file: &[u8], protocol: Protocol, initrd_len: Option<u64>) -> BootPlan {
    let image = inspected(file);
    let ram = layout::ram_ranges(RAM_LEN);
    let protocol = Some(protocol);
    let spec = BootSpec { protocol, initrd_len, cmdline: "console=ttyS0", ..BootSpec::new(&image, &ram) };
    BootPlan::new(&spec).unwrap()
}

fn ram() -> GuestRam {
    GuestRam::new(&layout::ram_ranges(RAM_LEN)).unwrap()
}

/// All addresses and all references to them differ from the defaults.
#[test]
fn load_goes_by_a_chosen_layout() {
    let file = bzimage();
    let (image, ranges) = (inspected(&file), layout::ram_ranges(RAM_LEN));
    let e820 = [E820Entry { addr: 0, len: 0x9_fc00, kind: E820Kind::Ram }];
    let spec = BootSpec {
        image: &image,
        protocol: Some(Protocol::Linux32),
        initrd_len: Some(4),
        cmdline: "quiet",
        ram: &ranges,
        layout: BootLayout {
            zero_page: 0x1_0000,
            cmdline: 0x3_0000,
            initrd: Some(0x60_0000),
            e820: Some(&e820),
        },
    };
    let ram = ram();
    let plan = BootPlan::new(&spec).unwrap();
    plan.load(
        ram.memory(),
        &mut KernelFile::new(Cursor::new(file)),
        Some(&mut InitrdFile::new(Cursor::new(b"cpio".to_vec()))),
    )
    .unwrap();
    assert_eq!(&bytes(&ram, 0x3_0000), b"quiet\0");
    assert_eq!(&bytes(&ram, 0x60_0000), b"cpio");
    // Zero page fields: "HdrS", cmd_line_ptr, ramdisk_image, e820_entries; and nothing at the default
    // address.
    let field = |at: u64| u32::from_le_bytes(bytes(&ram, 0x1_0000 + at));
    assert_eq!((field(0x202), field(0x228), field(0x218)), (0x5372_6448, 0x3_0000, 0x60_0000));
    assert_eq!(bytes(&ram, 0x1_01e8), [1]);
    assert_eq!((bytes(&ram, layout::ZERO_PAGE + 0x202), bytes(&ram, layout::CMDLINE)), ([0; 4], [0; 5]));
}

fn bytes<const N: usize>(ram: &GuestRam, gpa: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    bytes
}

fn word<T: vm_memory::ByteValued>(ram: &GuestRam, gpa: u64) -> T {
    ram.memory().read_obj(GuestAddress(gpa)).unwrap()
}

/// Loads `file` and `initrd` into fresh RAM.
fn loaded(file: &[u8], protocol: Protocol, initrd: Option<&[u8]>) -> GuestRam {
    let ram = ram();
    let plan = plan(file, protocol, initrd.map(|bytes| bytes.len() as u64));
    plan.load(
        ram.memory(),
        &mut KernelFile::new(Cursor::new(file)),
        initrd.map(|bytes| InitrdFile::new(Cursor::new(bytes))).as_mut(),
    )
    .unwrap();
    ram
}

/// Loads `file` and the initrd "cpio archive" with full and with short reads, and returns the RAM of each.
fn loaded_by_whole_and_by_short_reads(file: &[u8], protocol: Protocol) -> [Vec<u8>; 2] {
    let plan = plan(file, protocol, Some(12));
    let (whole, short) = (ram(), ram());
    let initrd = b"cpio archive";
    plan.load(
        whole.memory(),
        &mut KernelFile::new(Cursor::new(file)),
        Some(&mut InitrdFile::new(Cursor::new(initrd))),
    )
    .unwrap();
    plan.load(
        short.memory(),
        &mut KernelFile::new(ShortReads::new(file)),
        Some(&mut InitrdFile::new(ShortReads::new(initrd))),
    )
    .unwrap();
    [whole, short].map(|ram| {
        let mut bytes = vec![0; RAM_LEN as usize];
        ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    })
}

/// Like reads of files of 2 GiB or more.
#[test]
fn load_elf_by_short_reads_is_whole() {
    let [whole, short] = loaded_by_whole_and_by_short_reads(&vmlinux(), Protocol::Linux64);
    assert!(whole == short);
    // Also by the PVH entry, which has a separate loader.
    let [whole, short] = loaded_by_whole_and_by_short_reads(&vmlinux(), Protocol::Pvh);
    assert!(whole == short);
}

#[test]
fn load_bzimage_by_short_reads_is_whole() {
    let [whole, short] = loaded_by_whole_and_by_short_reads(&bzimage(), Protocol::Linux64);
    assert!(whole == short);
}

#[test]
fn load_elf_puts_segments_where_they_belong() {
    let ram = loaded(&vmlinux(), Protocol::Linux64, None);
    assert_eq!(bytes(&ram, 0x20_0000), [0xcc; 256]);
    assert_eq!(bytes(&ram, 0x20_0100), [0; 256]);
    assert_eq!(bytes(&ram, 0x20_2000), [0xdd; 16]);
}

#[test]
fn load_elf_zeroes_the_bss_and_nothing_behind_it() {
    // A BSS longer than one write of zeros, in RAM that has been used before.
    let file = elf(0x20_0000, &[Part::Load { paddr: 0x20_0000, bytes: vec![0xcc; 5], mem_len: 0x1_8001 }]);
    let ram = ram();
    ram.memory().write_slice(&[0xff; 0x2_0000], GuestAddress(0x1f_fff0)).unwrap();
    plan(&file, Protocol::Linux64, None)
        .load(ram.memory(), &mut KernelFile::new(Cursor::new(&file)), None)
        .unwrap();
    assert_eq!(bytes(&ram, 0x1f_ffff), [0xff, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0]);
    assert_eq!(bytes(&ram, 0x20_0005), [0; 0x1_7ffc]);
    assert_eq!(bytes(&ram, 0x21_8000), [0, 0xff]);
}

#[test]
fn load_elf_segment_without_bytes_is_zeroed() {
    let parts = [
        Part::Load { paddr: 0x20_0000, bytes: vec![0xcc; 4], mem_len: 4 },
        Part::Load { paddr: 0x20_1000, bytes: vec![], mem_len: 16 },
    ];
    let file = elf(0x20_0000, &parts);
    let ram = ram();
    ram.memory().write_slice(&[0xff; 17], GuestAddress(0x20_1000)).unwrap();
    plan(&file, Protocol::Linux64, None)
        .load(ram.memory(), &mut KernelFile::new(Cursor::new(&file)), None)
        .unwrap();
    assert_eq!(u128::from_le_bytes(bytes(&ram, 0x20_1000)), 0);
    assert_eq!(bytes(&ram, 0x20_1010), [0xff]);
}

#[test]
fn load_bzimage_puts_its_protected_mode_code_at_1_mib() {
    let ram = loaded(&bzimage(), Protocol::Linux64, None);
    assert_eq!(bytes(&ram, 0x10_0000), [0xcc; 1024]);
    assert_eq!(bytes(&ram, 0x10_0400), [0; 1024]);
}

#[test]
fn load_puts_the_initrd_and_the_command_line_in_place() {
    let ram = loaded(&bzimage(), Protocol::Linux64, Some(&[0x5a; 5000]));
    assert_eq!(bytes(&ram, 0x7f_e000), [0x5a; 5000]);
    assert_eq!(&bytes(&ram, layout::CMDLINE), b"console=ttyS0\0");
}

#[test]
fn load_reads_files_into_guest_memory() {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let ram = ram();
    let plan = plan(&vmlinux(), Protocol::Pvh, Some(3));
    plan.load(ram.memory(), &mut KernelFile::new(file(&vmlinux())), Some(&mut InitrdFile::new(file(b"abc"))))
        .unwrap();
    assert_eq!(bytes(&ram, 0x20_0000), [0xcc; 256]);
    assert_eq!(&bytes(&ram, 0x7f_f000), b"abc\0");
}

#[test]
fn load_zero_page_of_a_bzimage_is_golden() {
    let ram = loaded(&bzimage(), Protocol::Linux64, Some(&[1; 5000]));
    let mut expected = [0; 4096];
    // The setup header as in the file, then the fields that a boot loader sets.
    expected[0x1f1..0x26c].copy_from_slice(&bzimage()[0x1f1..0x26c]);
    expected[0x1fa..0x1fc].copy_from_slice(&[0xff, 0xff]); // vid_mode: normal
    expected[0x210] = 0xff; // type_of_loader
    expected[0x218..0x21c].copy_from_slice(&0x7f_e000_u32.to_le_bytes()); // ramdisk_image
    expected[0x21c..0x220].copy_from_slice(&5000_u32.to_le_bytes()); // ramdisk_size
    expected[0x228..0x22c].copy_from_slice(&0x2_0000_u32.to_le_bytes()); // cmd_line_ptr
    put_e820(&mut expected);
    assert_eq!(bytes(&ram, 0x7000), expected);
}

#[test]
fn load_zero_page_of_an_elf_is_golden() {
    let ram = loaded(&vmlinux(), Protocol::Linux64, None);
    let mut expected = [0; 4096];
    expected[0x1fa..0x1fc].copy_from_slice(&[0xff, 0xff]); // vid_mode: normal
    expected[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes()); // boot_flag
    expected[0x202..0x206].copy_from_slice(b"HdrS");
    expected[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes()); // version
    expected[0x210] = 0xff; // type_of_loader
    expected[0x211] = 1; // loadflags: LOADED_HIGH
    expected[0x228..0x22c].copy_from_slice(&0x2_0000_u32.to_le_bytes()); // cmd_line_ptr
    expected[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // kernel_alignment
    expected[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
    put_e820(&mut expected);
    assert_eq!(bytes(&ram, 0x7000), expected);
}

/// The memory map of 8 MiB.
fn put_e820(page: &mut [u8; 4096]) {
    page[0x1e8] = 4; // e820_entries
    let entry = |addr: u64, len: u64, kind: u32| {
        [&addr.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
    };
    let table = [
        entry(0, 0x9_fc00, 1),
        entry(0x9_fc00, 0x400, 2),
        entry(0xf_0000, 0x1_0000, 2),
        entry(0x10_0000, 0x70_0000, 1),
    ];
    page[0x2d0..0x2d0 + 80].copy_from_slice(&table.concat());
}

#[test]
fn load_zero_page_takes_no_setup_data_from_the_file() {
    let ram = loaded(&patched(bzimage(), 0x250, &[0xff; 8]), Protocol::Linux32, None);
    assert_eq!(word::<u64>(&ram, 0x7250), 0);
}

#[test]
fn load_zero_page_sentinel_is_0_in_used_memory() {
    let ram = ram();
    ram.memory().write_slice(&[0xff; 4096], GuestAddress(layout::ZERO_PAGE)).unwrap();
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    plan.load(ram.memory(), &mut KernelFile::new(Cursor::new(bzimage())), None).unwrap();
    assert_eq!(word::<u8>(&ram, 0x71ef), 0);
}

#[test]
fn load_pvh_structures_are_golden() {
    let ram = loaded(&vmlinux(), Protocol::Pvh, Some(&[1; 5000]));
    let start_info = [
        &0x336e_c578_u32.to_le_bytes()[..], // magic, "xEn3" with the top bit of E set
        &1_u32.to_le_bytes(),               // version
        &0_u32.to_le_bytes(),               // flags
        &1_u32.to_le_bytes(),               // nr_modules
        &0x6040_u64.to_le_bytes(),          // modlist_paddr
        &0x2_0000_u64.to_le_bytes(),        // cmdline_paddr
        &0_u64.to_le_bytes(),               // rsdp_paddr
        &0x6080_u64.to_le_bytes(),          // memmap_paddr
        &4_u32.to_le_bytes(),               // memmap_entries
        &0_u32.to_le_bytes(),               // reserved
    ]
    .concat();
    assert_eq!(bytes::<56>(&ram, 0x6000).to_vec(), start_info);
    assert_eq!(word::<[u64; 4]>(&ram, 0x6040), [0x7f_e000, 5000, 0, 0]);
    let memory_map =
        [[0, 0x9_fc00, 1], [0x9_fc00, 0x400, 2], [0xf_0000, 0x1_0000, 2], [0x10_0000, 0x70_0000, 1]];
    assert_eq!(word::<[u64; 12]>(&ram, 0x6080), memory_map.concat()[..]);
}

#[test]
fn load_pvh_without_an_initrd_has_no_module() {
    let ram = loaded(&vmlinux(), Protocol::Pvh, None);
    assert_eq!((word::<u32>(&ram, 0x600c), word::<u64>(&ram, 0x6010)), (0, 0));
    assert_eq!(bytes(&ram, 0x6040), [0; 32]);
}

#[test]
fn load_writes_the_descriptor_table_of_the_protocol() {
    let ram = loaded(&bzimage(), Protocol::Linux32, None);
    let table: [u64; 5] = std::array::from_fn(|n| word(&ram, layout::GDT + 8 * n as u64));
    assert_eq!(table, Protocol::Linux32.gdt());
}

#[test]
fn load_writes_page_tables_for_long_mode_only() {
    let long_mode = loaded(&bzimage(), Protocol::Linux64, None);
    // The PML4's only entry, and the large page at 2 MiB.
    assert_eq!(word::<u64>(&long_mode, layout::PML4), layout::PDPT | 3);
    assert_eq!(word::<u64>(&long_mode, layout::PDPT + 0x1000 + 8), 0x20_0083);
    let protected_mode = loaded(&bzimage(), Protocol::Linux32, None);
    assert_eq!(word::<u64>(&protected_mode, layout::PML4), 0);
}

#[test]
fn load_elf_that_shrank_is_an_error() {
    let plan = plan(&vmlinux(), Protocol::Pvh, None);
    let error =
        plan.load(ram().memory(), &mut KernelFile::new(Cursor::new(&vmlinux()[..400])), None).unwrap_err();
    assert_eq!(error.to_string(), "the kernel image changed after it was inspected");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        cause,
        "program header 0: p_offset 0xe8 + p_filesz 0x100 is beyond the end of the file at 0x190"
    );
}

#[test]
fn load_bzimage_file_that_shrank_on_disk_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bz");
    std::fs::write(&path, bzimage()).unwrap();
    let mut file = KernelFile::open(&path).unwrap();
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1500).unwrap();
    let error = plan.load(ram().memory(), &mut file, None).unwrap_err();
    assert!(matches!(error, LoadError::KernelChanged { source: Some(_) }), "{error:?}");
}

#[test]
fn load_kernel_with_another_header_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    let other = patched(bzimage(), 0x260, &0x20_0000_u32.to_le_bytes());
    let error = plan.load(ram().memory(), &mut KernelFile::new(Cursor::new(other)), None).unwrap_err();
    assert!(matches!(error, LoadError::KernelChanged { source: None }), "{error:?}");
}

/// A file whose headers can be read, but not its data: its second half disappears during the load.
struct HalfGone(Cursor<Vec<u8>>);

impl Read for HalfGone {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for HalfGone {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(pos)
    }
}

impl ReadVolatile for HalfGone {
    fn read_volatile<B: vm_memory::bitmap::BitmapSlice>(
        &mut self,
        buf: &mut vm_memory::VolatileSlice<B>,
    ) -> Result<usize, vm_memory::VolatileMemoryError> {
        let half = self.0.get_ref().len() / 2;
        let position = self.0.position();
        let mut first_half = Cursor::new(&self.0.get_ref()[..half]);
        first_half.set_position(position);
        let read = first_half.read_volatile(buf)?;
        self.0.set_position(position + read as u64);
        Ok(read)
    }
}

#[test]
fn load_elf_that_shrinks_while_it_is_read_is_an_error() {
    let plan = plan(&vmlinux(), Protocol::Pvh, None);
    let error =
        plan.load(ram().memory(), &mut KernelFile::new(HalfGone(Cursor::new(vmlinux()))), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "copying the kernel image into guest memory: Kernel Loader: failed to load ELF kernel image: \
         Kernel Loader: Unable to read kernel image"
    );
}

#[test]
fn load_bzimage_that_shrinks_while_it_is_read_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    let error =
        plan.load(ram().memory(), &mut KernelFile::new(HalfGone(Cursor::new(bzimage()))), None).unwrap_err();
    assert!(matches!(error, LoadError::Kernel(_)), "{error:?}");
}

#[test]
fn load_initrd_of_another_length_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, Some(5000));
    let mut initrd = InitrdFile::new(Cursor::new(vec![0; 4999]));
    let mut kernel = KernelFile::new(Cursor::new(bzimage()));
    let error = plan.load(ram().memory(), &mut kernel, Some(&mut initrd)).unwrap_err();
    assert_eq!(error.to_string(), "the initrd has 4999 bytes, but had 5000");
}

#[test]
fn load_initrd_that_was_planned_and_not_given_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, Some(1));
    let error = plan.load(ram().memory(), &mut KernelFile::new(Cursor::new(bzimage())), None).unwrap_err();
    assert_eq!(error.to_string(), "an initrd was planned, but not given");
}

#[test]
fn load_initrd_that_was_given_and_not_planned_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    let mut kernel = KernelFile::new(Cursor::new(bzimage()));
    let error =
        plan.load(ram().memory(), &mut kernel, Some(&mut InitrdFile::new(Cursor::new(vec![0])))).unwrap_err();
    assert_eq!(error.to_string(), "an initrd was given, but not planned");
}

#[test]
fn load_into_other_ram_than_planned_is_an_error() {
    let plan = plan(&bzimage(), Protocol::Linux64, None);
    let small = GuestRam::new(&[0..0x10_0000]).unwrap();
    assert!(plan.load(small.memory(), &mut KernelFile::new(Cursor::new(bzimage())), None).is_err());
    assert_eq!(small.memory().num_regions(), 1);
}
