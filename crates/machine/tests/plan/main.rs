//! Compares whole plans, as `--check` prints them, with tests/fixtures/plans. A change of an address, a slot or an interrupt
//! shows here first.

mod legacy;
mod processors;
mod virtio;

use std::fs;
use std::path::{Path, PathBuf};

use vmm_config::{ConfigFile, Overrides};
use vmm_machine::{Error, Inputs, Kinds, Plan};

/// A bzImage of one sector of kernel: protocol 2.15, relocatable, with a 64-bit entry, unpacking 2 MiB to
/// 16 MiB, taking an initrd up to 2 GiB.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 2048];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1fe, &0xaa55_u16.to_le_bytes()); // boot_flag
    put(0x201, &[0x6a]); // the header ends at 0x202 + 0x6a
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x230, &0x20_0000_u32.to_le_bytes()); // kernel_alignment
    put(0x234, &[1]); // relocatable_kernel
    put(0x236, &1_u16.to_le_bytes()); // xloadflags: 64-bit entry
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
    put(0x260, &0x20_0000_u32.to_le_bytes()); // init_size
    file
}

/// An ELF64 for x86-64 with one segment of a page at 16 MiB and, if wanted, a PVH note with that entry.
fn elf(pvh: bool) -> Vec<u8> {
    const PAGE: u64 = 0x1000;
    const AT: u64 = 0x100_0000;
    let phnum: u16 = if pvh { 2 } else { 1 };
    let mut file = vec![0; 2 * PAGE as usize];
    let mut put = |at: u64, bytes: &[u8]| file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2_u16.to_le_bytes()); // ET_EXEC
    put(18, &62_u16.to_le_bytes()); // EM_X86_64
    put(20, &1_u32.to_le_bytes());
    put(24, &AT.to_le_bytes()); // e_entry
    put(32, &64_u64.to_le_bytes()); // e_phoff
    put(52, &64_u16.to_le_bytes()); // e_ehsize
    put(54, &56_u16.to_le_bytes()); // e_phentsize
    put(56, &phnum.to_le_bytes());
    // PT_LOAD: a page of the file, two of memory.
    put(64, &1_u32.to_le_bytes());
    put(64 + 8, &PAGE.to_le_bytes()); // p_offset
    put(64 + 16, &AT.to_le_bytes()); // p_vaddr
    put(64 + 24, &AT.to_le_bytes()); // p_paddr
    put(64 + 32, &PAGE.to_le_bytes()); // p_filesz
    put(64 + 40, &(2 * PAGE).to_le_bytes()); // p_memsz
    put(64 + 48, &PAGE.to_le_bytes()); // p_align
    if pvh {
        // PT_NOTE: name "Xen", type 18, a descriptor of 8 bytes.
        put(120, &4_u32.to_le_bytes());
        put(120 + 8, &0x800_u64.to_le_bytes());
        put(120 + 32, &24_u64.to_le_bytes());
        put(120 + 40, &24_u64.to_le_bytes());
        put(120 + 48, &4_u64.to_le_bytes());
        put(0x800, &4_u32.to_le_bytes());
        put(0x804, &8_u32.to_le_bytes());
        put(0x808, &18_u32.to_le_bytes());
        put(0x80c, b"Xen\0");
        put(0x810, &AT.to_le_bytes());
    }
    file
}

/// Plans the machine of `json`, with a kernel and an initrd in a temporary directory.
fn plan(kernel: &[u8], json: &str) -> String {
    planned(kernel, json).to_string()
}

fn planned(kernel: &[u8], json: &str) -> Plan {
    try_plan(kernel, json, &Kinds::default()).unwrap()
}

fn try_plan(kernel: &[u8], json: &str, kinds: &Kinds<'_>) -> Result<Plan, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kernel"), kernel).unwrap();
    fs::write(dir.path().join("initrd"), vec![0; 0x12_3456]).unwrap();
    let file = ConfigFile::parse(json, &dir.path().join("vm.json")).unwrap();
    let config = file.merge(Overrides::default()).unwrap();
    let mut inputs = Inputs::open(&config, kinds)?;
    Plan::new(&config, &mut inputs)
}

/// Compares with the golden file; `VMM_BLESS=1` rewrites it instead, for an intended change.
fn assert_golden(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/plans").join(name);
    if std::env::var_os("VMM_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "the plan differs from tests/fixtures/plans/{name}; VMM_BLESS=1 accepts it");
}

#[test]
fn plan_of_a_bzimage_with_an_initrd_is_as_recorded() {
    let json = r#"{"boot": {"kernel": "kernel", "initrd": "initrd"}}"#;
    assert_golden("bzimage-256m.txt", &plan(&bzimage(), json));
}

#[test]
fn plan_of_a_bzimage_by_its_32_bit_entry_is_as_recorded() {
    let json = r#"{"boot": {"kernel": "kernel", "protocol": "linux32"}, "memory": {"size": "32M"}}"#;
    assert_golden("bzimage-linux32-32m.txt", &plan(&bzimage(), json));
}

#[test]
fn plan_of_an_elf_in_more_memory_than_the_gap_leaves_is_as_recorded() {
    let json = r#"{"boot": {"kernel": "kernel", "initrd": "initrd", "cmdline": "quiet"},
                   "memory": {"size": "5G"}, "cpus": {"count": 2}, "serial": "none"}"#;
    assert_golden("elf-5g.txt", &plan(&elf(false), json));
}

#[test]
fn plan_of_an_elf_with_a_pvh_note_is_as_recorded() {
    let json = r#"{"boot": {"kernel": "kernel", "initrd": "initrd"}, "memory": {"size": "64M"}}"#;
    assert_golden("pvh-64m.txt", &plan(&elf(true), json));
}

#[test]
fn plan_of_a_flat_image_with_debug_devices_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "long", "load_address": "0x200000"}}, "irqchip": false,
                   "memory": {"size": "4M"}, "devices": [{"type": "debug-exit"}, {"type": "debug-console"},
                   {"type": "pseudo-serial", "port": "0x10"}], "expect": {"rax": 42}}"#;
    assert_golden("flat-long-4m.txt", &plan(b"\xf4", json));
}

#[test]
fn plan_of_shared_memory_says_so() {
    let json = r#"{"boot": {"flat": {"image": "kernel"}}, "memory": {"size": "8K", "shared": true}}"#;
    let shown = plan(b"\xf4", json);
    assert!(shown.contains("memory: 8 KiB, shared\n"), "{shown}");
}

#[test]
fn plan_of_a_reset_image_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "reset"}}, "memory": {"size": "1M"}}"#;
    assert_golden("flat-reset-1m.txt", &plan(&[0xf4; 0x1_0000], json));
}

/// As built by gcc and ld: it ends with its jump, 11 bytes below 1 MiB.
#[test]
fn plan_of_a_reset_image_that_ends_with_its_jump_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "reset"}}, "memory": {"size": "1M"}}"#;
    assert_golden("flat-reset-65525.txt", &plan(&[0xf4; 65_525], json));
}

/// The minimum memory; the stack ends at its end.
#[test]
fn plan_of_a_flat_image_in_one_page_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel"}}, "memory": {"size": "4K"}, "irqchip": false}"#;
    assert_golden("flat-real-4k.txt", &plan(&[0xf4; 29], json));
}

/// 8 KiB at 0: the descriptor tables move, the page tables needn't.
#[test]
fn plan_of_a_flat_image_over_the_tables_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "long", "load_address": "0x0"}}, "irqchip": false,
                   "memory": {"size": "1M"}}"#;
    assert_golden("flat-long-at-0.txt", &plan(&[0xf4; 0x2000], json));
}

/// A PML4 at 0x2000 whose first entry is present.
#[test]
fn plan_of_a_flat_image_with_tables_of_its_own_is_as_recorded() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "long", "load_address": "0x0", "tables": false,
                   "page_tables": "0x2000"}}, "irqchip": false, "memory": {"size": "32K"}}"#;
    let mut image = vec![0xf4; 0x2008];
    image[0x2000..].copy_from_slice(&0x3003_u64.to_le_bytes());
    assert_golden("flat-own-tables-32k.txt", &plan(&image, json));
}

/// The highest address first, each label at its lower border.
#[test]
fn picture_of_a_reset_image_shows_it_twice() {
    let json = r#"{"boot": {"flat": {"image": "kernel", "mode": "reset"}}, "memory": {"size": "1M"}, "irqchip": false}"#;
    let svg = planned(&[0xf4; 0x1_0000], json).memory_map_svg();
    let text = |line: &str| Some(line.split_once('>')?.1.strip_suffix("</text>")?.to_owned());
    let texts: Vec<String> = svg.lines().filter(|line| line.starts_with("<text")).filter_map(text).collect();
    let rows: Vec<(&str, &str)> =
        texts[1..].chunks(2).map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let expected = [
        ("the image's last 64 KiB again", "0xffff0000"),
        ("", "0xfffc0000"),
        ("KVM task state segment", "0xfffbd000"),
        ("KVM identity map", "0xfffbc000"),
        ("", "0x100000"),
        ("image", "0xf0000"),
        ("RAM", "0x0"),
    ];
    assert_eq!(rows, expected);
}
