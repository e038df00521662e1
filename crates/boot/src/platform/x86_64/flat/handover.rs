//! Data passed to a multiboot kernel (GNU Multiboot specification 0.6.96 §3.2, §3.3).

use std::ops::Range;

use vmm_arch::e820::{E820Entry, E820Kind};
use vmm_arch::flat::Table;
use vmm_arch::layout;
use vmm_memory::PAGE_LEN;

use crate::cmdline;
use crate::platform::x86_64::flat::error::FlatPlanError;
use crate::platform::x86_64::flat::handover_room::{MAP_ENTRY_LEN, MAX_MODULES, MAX_STRINGS_LEN};
use crate::platform::x86_64::flat::spec::ModuleSpec;

/// Value of EAX at the kernel's entry.
pub(crate) const MAGIC: u32 = 0x2bad_b002;

/// Length of the information structure including its framebuffer fields, which are 0.
const INFO_LEN: usize = 116;
/// Flags of the information structure, which mark valid fields.
const HAS_MEMORY: u32 = 1;
const HAS_CMDLINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const HAS_LOADER_NAME: u32 = 1 << 9;
/// Offsets of these fields.
const FLAGS: usize = 0;
const MEM_LOWER: usize = 4;
const MEM_UPPER: usize = 8;
const CMDLINE: usize = 16;
const MODS_COUNT: usize = 20;
const MODS_ADDR: usize = 24;
const MMAP_LENGTH: usize = 44;
const MMAP_ADDR: usize = 48;
const BOOT_LOADER_NAME: usize = 64;
const MAP_ENTRY_SIZE: u32 = 20;
const LOADER_NAME: &[u8] = b"vmm\0";

/// A placed module and its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) range: Range<u64>,
    cmdline: String,
}

/// The command line and the modules, checked and placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handover {
    cmdline: String,
    modules: Vec<Module>,
}

impl Handover {
    /// Checks the command line, and places the modules after an image that ends at `image_end`, in RAM that
    /// ends at `ram_end`.
    pub(crate) fn new(
        cmdline: &str,
        modules: &[ModuleSpec<'_>],
        image_end: u64,
        ram_end: u64,
    ) -> Result<Self, FlatPlanError> {
        let max = layout::CMDLINE_MAX_LEN - 1;
        let cmdline = cmdline::check(cmdline, max).map_err(FlatPlanError::Cmdline)?.to_owned();
        if modules.len() > MAX_MODULES {
            return Err(FlatPlanError::TooManyModules { count: modules.len() });
        }
        // Above all tables in low memory, even if the image is there.
        let mut free = image_end.max(layout::HIGH_MEMORY)..ram_end;
        let mut placed = Vec::new();
        for (index, module) in modules.iter().enumerate() {
            let cmdline = cmdline::check(module.cmdline, max)
                .map_err(|error| FlatPlanError::ModuleCmdline { index, error })?;
            let range = place_module(index, module.len, &free)?;
            free.start = range.end;
            placed.push(Module { range, cmdline: cmdline.to_owned() });
        }
        let len = placed.iter().map(|module| module.cmdline.len() as u64 + 1).sum();
        if len > MAX_STRINGS_LEN {
            return Err(FlatPlanError::ModuleStrings { len });
        }
        Ok(Self { cmdline, modules: placed })
    }

    /// The command line, without its NUL.
    pub(crate) fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// The modules, in ascending order of address.
    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The tables for the kernel in low memory, including the memory map `e820` of at most
    /// [`MAX_MAP_ENTRIES`] entries.
    pub(crate) fn tables(&self, e820: &[E820Entry]) -> Vec<Table> {
        let map: Vec<u8> = e820.iter().flat_map(map_entry).collect();
        let table = |what, gpa, bytes| Table { what, gpa, bytes };
        let mut tables = vec![
            table("multiboot information", layout::MULTIBOOT_INFO, self.information(e820)),
            table("boot loader name", layout::MULTIBOOT_LOADER_NAME, LOADER_NAME.to_vec()),
            table("memory map", layout::MULTIBOOT_MEMORY_MAP, map),
        ];
        if !self.modules.is_empty() {
            let (list, strings) = self.module_list();
            tables.push(table("module list", layout::MULTIBOOT_MODULES, list));
            tables.push(table("module strings", layout::MULTIBOOT_STRINGS, strings));
        }
        tables.push(table("command line", layout::CMDLINE, with_nul(&self.cmdline)));
        tables
    }

    fn information(&self, e820: &[E820Entry]) -> Vec<u8> {
        let flags = HAS_MEMORY | HAS_CMDLINE | HAS_MEMORY_MAP | HAS_LOADER_NAME;
        let mut bytes = vec![0; INFO_LEN];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(FLAGS, flags);
        put(MEM_LOWER, ram_kib(e820, 0));
        put(MEM_UPPER, ram_kib(e820, layout::HIGH_MEMORY));
        put(CMDLINE, layout::CMDLINE as u32);
        put(MMAP_LENGTH, (e820.len() * MAP_ENTRY_LEN) as u32);
        put(MMAP_ADDR, layout::MULTIBOOT_MEMORY_MAP as u32);
        put(BOOT_LOADER_NAME, layout::MULTIBOOT_LOADER_NAME as u32);
        if !self.modules.is_empty() {
            put(FLAGS, flags | HAS_MODULES);
            put(MODS_COUNT, self.modules.len() as u32);
            put(MODS_ADDR, layout::MULTIBOOT_MODULES as u32);
        }
        bytes
    }

    /// The module list, and the strings to which its entries point.
    fn module_list(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut list, mut strings) = (Vec::new(), Vec::new());
        for Module { range, cmdline } in &self.modules {
            let string = layout::MULTIBOOT_STRINGS + strings.len() as u64;
            // Addresses are below the MMIO gap, so they fit 32 bits; the last field is reserved.
            list.extend([range.start, range.end, string, 0].map(|word| (word as u32).to_le_bytes()).concat());
            strings.extend(with_nul(cmdline));
        }
        (list, strings)
    }
}

/// Places a module of `len` bytes on the first page of `free`, if it fits.
fn place_module(index: usize, len: u64, free: &Range<u64>) -> Result<Range<u64>, FlatPlanError> {
    if len == 0 {
        return Err(FlatPlanError::ModuleEmpty { index });
    }
    // No overflow: `free` starts in RAM below the MMIO gap, or just after it.
    let start = free.start.next_multiple_of(PAGE_LEN);
    let room = free.end.saturating_sub(start);
    if len > room {
        return Err(FlatPlanError::ModuleTooLarge { index, len, start, free: room });
    }
    Ok(start..start + len)
}

fn map_entry(entry: &E820Entry) -> Vec<u8> {
    // Types have the same values as in e820.
    let (addr, len) = (entry.addr.to_le_bytes(), entry.len.to_le_bytes());
    [&MAP_ENTRY_SIZE.to_le_bytes()[..], &addr, &len, &(entry.kind as u32).to_le_bytes()].concat()
}

/// Size in KiB of the RAM that starts at `start`, up to the first hole. It is below the MMIO gap, so it fits
/// 32 bits.
fn ram_kib(e820: &[E820Entry], start: u64) -> u32 {
    let entry = e820.iter().find(|entry| entry.addr == start && entry.kind == E820Kind::Ram);
    entry.map_or(0, |entry| (entry.len / 1024) as u32)
}

fn with_nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data for an image that ends at 0x101001, in 8 MiB of RAM.
    fn handover(modules: &[(u64, &str)]) -> Result<Handover, FlatPlanError> {
        let modules: Vec<_> = modules.iter().map(|&(len, cmdline)| ModuleSpec { len, cmdline }).collect();
        Handover::new("root=/ ro", &modules, 0x10_1001, 8 << 20)
    }

    fn complaint(modules: &[(u64, &str)]) -> String {
        handover(modules).unwrap_err().to_string()
    }

    fn table(handover: &Handover, what: &str) -> Option<Table> {
        let map = vmm_arch::e820::map(&layout::ram_ranges(8 << 20));
        handover.tables(&map).into_iter().find(|table| table.what == what)
    }

    #[test]
    fn information_with_modules_is_golden() {
        let handover = handover(&[(1, "a"), (2, "b")]).unwrap();
        let mut expected = [0_u32; 29];
        expected[0] = 0x24d; // flags 0, 2, 3, 6 and 9
        expected[1] = 639; // KiB below the EBDA
        expected[2] = 7168; // KiB from 1 to 8 MiB
        expected[4] = 0x2_0000; // cmdline
        expected[5] = 2; // mods_count
        expected[6] = 0x5800; // mods_addr
        expected[11] = 4 * 24; // mmap_length
        expected[12] = 0x5100; // mmap_addr
        expected[16] = 0x5080; // boot_loader_name
        let information = table(&handover, "multiboot information").unwrap();
        assert_eq!((information.gpa, information.bytes), (0x5000, expected.map(u32::to_le_bytes).concat()));
    }

    #[test]
    fn information_without_modules_says_so() {
        let handover = handover(&[]).unwrap();
        let information = table(&handover, "multiboot information").unwrap().bytes;
        assert_eq!(information[..4], 0x245_u32.to_le_bytes());
        assert_eq!((&information[20..28], table(&handover, "module list")), (&[0; 8][..], None));
    }

    #[test]
    fn memory_map_entries_have_their_size_in_front() {
        let map = table(&handover(&[]).unwrap(), "memory map").unwrap().bytes;
        let entry = |addr: u64, len: u64, kind: u32| {
            [&20_u32.to_le_bytes()[..], &addr.to_le_bytes(), &len.to_le_bytes(), &kind.to_le_bytes()].concat()
        };
        let expected = [
            entry(0, 0x9_fc00, 1),
            entry(0x9_fc00, 0x400, 2),
            entry(0xf_0000, 0x1_0000, 2),
            entry(0x10_0000, 0x70_0000, 1),
        ];
        assert_eq!(map, expected.concat());
    }

    #[test]
    fn modules_are_listed_with_their_strings() {
        let handover = handover(&[(5000, "first x"), (1, "")]).unwrap();
        let list = [0x10_2000_u32, 0x10_3388, 0x6000, 0, 0x10_4000, 0x10_4001, 0x6008, 0];
        assert_eq!(table(&handover, "module list").unwrap().bytes, list.map(u32::to_le_bytes).concat());
        assert_eq!(table(&handover, "module strings").unwrap().bytes, b"first x\0\0");
    }

    #[test]
    fn command_line_and_loader_name_end_with_a_nul() {
        let handover = handover(&[]).unwrap();
        assert_eq!(table(&handover, "command line").unwrap().bytes, b"root=/ ro\0");
        assert_eq!(table(&handover, "boot loader name").unwrap().bytes, b"vmm\0");
    }

    #[test]
    fn modules_of_a_low_image_lie_above_1_mib() {
        let module = ModuleSpec { len: 1, cmdline: "" };
        let handover = Handover::new("", &[module], 0x3_0000, 8 << 20).unwrap();
        assert_eq!(handover.modules()[0].range, 0x10_0000..0x10_0001);
    }

    #[test]
    fn module_that_fills_memory_to_the_last_byte_fits() {
        assert_eq!(handover(&[(0x6f_e000, "")]).unwrap().modules()[0].range, 0x10_2000..0x80_0000);
    }

    #[test]
    fn module_one_byte_too_large_says_how_much_memory_would_do() {
        let expected = "boot.flat.modules[1] of 7327745 bytes doesn't fit into the 7327744 bytes that are free \
                        from 0x103000 on; give the guest at least 9 MiB";
        assert_eq!(complaint(&[(1, ""), (0x6f_d001, "")]), expected);
    }

    #[test]
    fn module_larger_than_any_memory_is_hopeless() {
        let expected = "boot.flat.modules[0] of 18446744073709551615 bytes doesn't fit into the 7331840 bytes \
                        that are free from 0x102000 on; no guest has more than 3221225472 there, so use a \
                        smaller one";
        assert_eq!(complaint(&[(u64::MAX, "")]), expected);
    }

    #[test]
    fn module_empty_is_refused() {
        assert_eq!(complaint(&[(1, ""), (0, "")]), "boot.flat.modules[1] is empty");
    }

    #[test]
    fn module_string_with_a_nul_is_refused() {
        assert_eq!(complaint(&[(1, "a\0")]), "boot.flat.modules[0]: command line: NUL at byte 1");
    }

    #[test]
    fn modules_that_the_list_has_no_room_for_are_refused() {
        assert!(handover(&[(1, ""); 128]).is_ok());
        assert_eq!(complaint(&[(1, ""); 129]), "boot.flat.modules: 129 modules; at most 128 fit");
    }

    #[test]
    fn module_strings_that_have_no_room_are_refused() {
        let long = "x".repeat(4095);
        assert!(handover(&[(1, &long)]).is_ok());
        let expected =
            "boot.flat.modules: the command lines have 4097 bytes with their NULs; at most 4096 fit";
        assert_eq!(complaint(&[(1, &long), (1, "")]), expected);
    }

    #[test]
    fn command_line_is_checked() {
        let error = Handover::new("ü", &[], 0x10_1000, 8 << 20).unwrap_err();
        let expected =
            "boot.cmdline: command line: 'ü' at byte 0; only printable ASCII characters are allowed";
        assert_eq!(error.to_string(), expected);
    }
}
