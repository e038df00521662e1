//! The initial state for a flat image, a program without a boot protocol.
//! | mode | instructions | memory | stack | source |
//! |---|---|---|---|---|
//! | [`Mode::Real`] | 16-bit | segments below 1 MiB, IVT at 0 | SS 0 | Intel SDM volume 3 §21.1 |
//! | [`Mode::Reset`] | 16-bit, from 0xffff_fff0 | as the processor comes out of reset | none | §10.1.4 |
//! | [`Mode::Protected`] | 32-bit | flat segments, no paging | flat | §10.8 |
//! | [`Mode::Paged`] | 32-bit | flat, 4 GiB one to one in 4 MiB pages | flat | §4.3 |
//! | [`Mode::Long`] | 64-bit | 4 GiB one to one in 2 MiB pages | flat | §10.8.5 |
//!
//! Interrupts are disabled in all modes. Except in real mode and after reset the IDT is empty, so an
//! exception is a triple fault until the guest loads its own.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use super::boot::{self, CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LONG_MODE, PDE_LARGE, PTE_PRESENT_WRITE};
use super::layout;
use super::segments::{self, Code, TYPE_CODE, TYPE_DATA};

/// The processor mode in which a flat image starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit real mode.
    Real,
    /// The processor's own state after reset.
    Reset,
    /// 32-bit protected mode without paging.
    Protected,
    /// 32-bit protected mode with paging.
    Paged,
    /// 64-bit long mode.
    Long,
}

/// The initial state of a flat image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The processor mode.
    pub mode: Mode,
    /// Guest-physical address of the first instruction; below 1 MiB in real mode.
    pub entry: u64,
    /// Stack pointer: the address just above the stack; at most 0x1_0000 in real mode.
    pub stack: u64,
    /// EAX. A multiboot kernel expects its magic number there.
    pub eax: u32,
    /// EBX. A multiboot kernel expects the address of its information there.
    pub ebx: u32,
    /// Location of the mode's descriptor and page tables.
    pub tables: Tables,
}

/// Location of the descriptor and page tables of a mode. Real mode and reset need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// The tables from [`Mode::tables_at`], which must be written there.
    Written {
        /// The GDT, 8-byte aligned.
        gdt: u64,
        /// The IDT, which has no entries.
        idt: u64,
        /// The PML4, or the page directory of [`Mode::Paged`]; further page tables follow it.
        page_tables: u64,
    },
    /// Only the image's own tables. GDTR and IDTR have base 0 and limit 0. The segment registers are loaded
    /// as if there were a GDT, and remain valid until the guest reloads one, which requires a GDT of its own.
    Own {
        /// CR3 in a mode with paging: the image's PML4 or page directory.
        page_tables: u64,
    },
}

impl Tables {
    /// The addresses in [`layout`], which Linux's tables use too.
    pub const LOW: Self = Self::Written { gdt: layout::GDT, idt: layout::IDT, page_tables: layout::PML4 };

    fn gdt(self) -> Option<u64> {
        match self {
            Self::Written { gdt, .. } => Some(gdt),
            Self::Own { .. } => None,
        }
    }

    fn page_tables(self) -> u64 {
        match self {
            Self::Written { page_tables, .. } | Self::Own { page_tables } => page_tables,
        }
    }
}

/// A table to write to guest memory before the guest starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name for messages.
    pub what: &'static str,
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// CR4.PSE: 4 MiB pages. Intel SDM volume 3 §2.5.
const CR4_PSE: u64 = 1 << 4;
/// Limit of a real-mode segment: 64 KiB.
const REAL_LIMIT: u32 = 0xffff;
/// The real-mode interrupt vector table: 256 far pointers of 4 bytes.
const IVT_LIMIT: u16 = 256 * 4 - 1;
/// log2 of the page size of a 32-bit page directory entry.
const LARGE_PAGE_SHIFT: u32 = 22;
/// Entries of a 32-bit page directory: 1,024 pages of 4 MiB cover 4 GiB.
const DIRECTORY_ENTRIES: u32 = 1024;
/// Size of a page, in bytes.
const PAGE_LEN: usize = 0x1000;

impl Mode {
    /// All modes, in the order in which a processor enters them.
    pub const ALL: [Self; 5] = [Self::Real, Self::Reset, Self::Protected, Self::Paged, Self::Long];

    /// Name in messages and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Reset => "reset",
            Self::Protected => "protected",
            Self::Paged => "paged",
            Self::Long => "long",
        }
    }

    /// [`tables_at`](Self::tables_at) with [`Tables::LOW`].
    pub fn tables(self) -> Vec<Table> {
        self.tables_at(Tables::LOW)
    }

    /// The GDT, the IDT and the page tables of the mode, in this order, to be written at `places`. Empty in
    /// real mode, after reset, and if the image has its own tables.
    pub fn tables_at(self, places: Tables) -> Vec<Table> {
        let (Some(code), Tables::Written { gdt, idt, page_tables: root }) = (self.code(), places) else {
            return Vec::new();
        };
        let mut tables = vec![
            Table { what: "descriptor tables", gpa: gdt, bytes: words(&segments::gdt(code)) },
            Table { what: "interrupt table", gpa: idt, bytes: words(&[0]) },
        ];
        match self {
            Self::Paged => tables.push(Table { what: "page directory", gpa: root, bytes: page_directory() }),
            Self::Long => tables.push(Table { what: "page tables", gpa: root, bytes: page_tables(root) }),
            Self::Real | Self::Reset | Self::Protected => {}
        }
        tables
    }

    /// Whether paging is enabled.
    pub fn has_paging(self) -> bool {
        matches!(self, Self::Paged | Self::Long)
    }

    /// Type of the code segment in modes with segment descriptors.
    fn code(self) -> Option<Code> {
        match self {
            Self::Real | Self::Reset => None,
            Self::Protected | Self::Paged => Some(Code::Bits32),
            Self::Long => Some(Code::Bits64),
        }
    }
}

impl Start {
    /// A start with EAX and EBX 0 and the tables at [`Tables::LOW`].
    pub fn new(mode: Mode, entry: u64, stack: u64) -> Self {
        Self { mode, entry, stack, eax: 0, ebx: 0, tables: Tables::LOW }
    }

    /// Changes the registers of a new vCPU, as KVM returns them, to the initial state. [`Mode::Reset`]
    /// changes nothing: a new vCPU already has the processor's reset state.
    pub fn apply_to(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        if self.mode == Mode::Reset {
            return;
        }
        *regs = kvm_regs {
            rip: self.entry,
            rsp: self.stack,
            rax: self.eax.into(),
            rbx: self.ebx.into(),
            // Bit 1 is always set; IF is clear.
            rflags: 2,
            ..Default::default()
        };
        sregs.cr0 = CR0_ET;
        sregs.cr3 = 0;
        sregs.cr4 = 0;
        sregs.efer = 0;
        match self.mode.code() {
            Some(code) => self.enter_protected_mode(sregs, code),
            None => self.enter_real_mode(regs, sregs),
        }
    }

    fn enter_real_mode(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        // CS holds the upper four bits of the 20-bit entry, IP the rest.
        let selector = (self.entry & 0xf_0000) >> 4;
        regs.rip = self.entry & 0xffff;
        // A stack at 0x1_0000 means SP 0: the first push wraps to 0xfffe.
        regs.rsp = self.stack & 0xffff;
        sregs.cs = real_segment(selector as u16, TYPE_CODE);
        let data = real_segment(0, TYPE_DATA);
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.idt.base = 0;
        sregs.idt.limit = IVT_LIMIT;
    }

    fn enter_protected_mode(&self, sregs: &mut kvm_sregs, code: Code) {
        segments::load(sregs, code, self.tables.gdt());
        sregs.idt.base = match self.tables {
            Tables::Written { idt, .. } => idt,
            Tables::Own { .. } => 0,
        };
        sregs.idt.limit = 0;
        sregs.cr0 |= CR0_PE;
        if self.mode == Mode::Protected {
            return;
        }
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = self.tables.page_tables();
        if code == Code::Bits64 {
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LONG_MODE;
        } else {
            sregs.cr4 = CR4_PSE;
        }
    }
}

fn real_segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: u64::from(selector) * 16,
        limit: REAL_LIMIT,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        ..Default::default()
    }
}

/// A 32-bit page directory that identity-maps 4 GiB.
fn page_directory() -> Vec<u8> {
    let flags = (PTE_PRESENT_WRITE | PDE_LARGE) as u32;
    (0..DIRECTORY_ENTRIES).flat_map(|n| (n << LARGE_PAGE_SHIFT | flags).to_le_bytes()).collect()
}

/// The pages of [`boot::page_tables_at`], contiguous from the PML4 on.
fn page_tables(pml4: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (gpa, entries) in boot::page_tables_at(pml4) {
        bytes.resize((gpa - pml4) as usize, 0);
        bytes.extend(words(&entries));
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE_LEN), 0);
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registers after [`Start::apply_to`] on a new vCPU of KVM, where EDX and CR0 aren't 0.
    fn registers(mode: Mode, entry: u64, stack: u64) -> (kvm_regs, kvm_sregs) {
        let (mut regs, mut sregs) = reset();
        let start = Start { eax: 0x2bad_b002, ebx: 0x5000, ..Start::new(mode, entry, stack) };
        start.apply_to(&mut regs, &mut sregs);
        (regs, sregs)
    }

    /// The special registers of a start with `tables`.
    fn with_tables(mode: Mode, tables: Tables) -> kvm_sregs {
        let (mut regs, mut sregs) = reset();
        Start { tables, ..Start::new(mode, 0, 0x8ff0) }.apply_to(&mut regs, &mut sregs);
        sregs
    }

    fn reset() -> (kvm_regs, kvm_sregs) {
        let regs = kvm_regs { rip: 0xfff0, rdx: 0x600, rflags: 2, ..Default::default() };
        let mut sregs = kvm_sregs { cr0: 0x6000_0010, apic_base: 0xfee0_0900, ..Default::default() };
        sregs.cs = kvm_segment { base: 0xffff_0000, selector: 0xf000, ..real_segment(0, 0xb) };
        (regs, sregs)
    }

    fn table(mode: Mode, what: &str) -> Table {
        mode.tables().into_iter().find(|table| table.what == what).unwrap()
    }

    fn word32(table: &Table, n: usize) -> u32 {
        u32::from_le_bytes(table.bytes[4 * n..4 * n + 4].try_into().unwrap())
    }

    fn word64(table: &Table, n: usize) -> u64 {
        u64::from_le_bytes(table.bytes[8 * n..8 * n + 8].try_into().unwrap())
    }

    #[test]
    fn mode_names_are_those_of_the_configuration() {
        assert_eq!(Mode::ALL.map(Mode::name), ["real", "reset", "protected", "paged", "long"]);
    }

    #[test]
    fn real_entry_0_is_cs_0_ip_0() {
        let (regs, sregs) = registers(Mode::Real, 0, 0x8ff0);
        assert_eq!((sregs.cs.selector, sregs.cs.base, regs.rip), (0, 0, 0));
        assert_eq!((regs.rsp, regs.rflags, regs.rdx), (0x8ff0, 2, 0));
    }

    #[test]
    fn real_entry_at_the_end_of_the_first_segment_keeps_cs_0() {
        let (regs, sregs) = registers(Mode::Real, 0xffff, 0x8ff0);
        assert_eq!((sregs.cs.selector, regs.rip), (0, 0xffff));
    }

    #[test]
    fn real_entry_above_64_kib_has_its_upper_digit_in_cs() {
        let (regs, sregs) = registers(Mode::Real, 0x9_1234, 0x8ff0);
        assert_eq!((sregs.cs.selector, sregs.cs.base, regs.rip), (0x9000, 0x9_0000, 0x1234));
    }

    #[test]
    fn real_mode_has_64_kib_segments_and_the_ivt() {
        let (_, sregs) = registers(Mode::Real, 0, 0x8ff0);
        let access = |s: kvm_segment| (s.limit, s.type_, s.present, s.s, s.g, s.db);
        assert_eq!(access(sregs.cs), (0xffff, 0xb, 1, 1, 0, 0));
        assert_eq!(access(sregs.ss), (0xffff, 3, 1, 1, 0, 0));
        assert_eq!([sregs.ds.base, sregs.es.base, sregs.fs.base, sregs.gs.base, sregs.ss.base], [0; 5]);
        assert_eq!((sregs.idt.base, sregs.idt.limit), (0, 0x3ff));
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x10, 0, 0));
    }

    #[test]
    fn real_stack_at_64_kib_is_sp_0() {
        assert_eq!(registers(Mode::Real, 0, 0x1_0000).0.rsp, 0);
    }

    #[test]
    fn reset_changes_nothing() {
        assert_eq!(registers(Mode::Reset, 0x1234, 0x5678), reset());
    }

    #[test]
    fn protected_mode_is_flat_without_paging() {
        let (regs, sregs) = registers(Mode::Protected, 0x10_0000, 0x8ff0);
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
        assert_eq!((sregs.cs.base, sregs.cs.limit, sregs.cs.db, sregs.cs.l), (0, 0xffff_ffff, 1, 0));
        assert_eq!((sregs.gdt.base, sregs.idt.base, sregs.idt.limit), (layout::GDT, layout::IDT, 0));
        assert_eq!((regs.rip, regs.rsp, regs.rbp), (0x10_0000, 0x8ff0, 0));
    }

    #[test]
    fn multiboot_registers_are_passed() {
        let (regs, _) = registers(Mode::Protected, 0x10_0000, 0x8ff0);
        assert_eq!((regs.rax, regs.rbx), (0x2bad_b002, 0x5000));
    }

    #[test]
    fn start_keeps_the_apic_base_that_kvm_gave() {
        assert_eq!(registers(Mode::Long, 0x10_0000, 0x8ff0).1.apic_base, 0xfee0_0900);
    }

    #[test]
    fn paged_mode_has_4_mib_pages() {
        let (_, sregs) = registers(Mode::Paged, 0x10_0000, 0x8ff0);
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4), (0x8000_0011, layout::PML4, 0x10));
        assert_eq!((sregs.efer, sregs.cs.db, sregs.cs.l), (0, 1, 0));
    }

    #[test]
    fn paged_directory_maps_4_gib_one_to_one() {
        let directory = table(Mode::Paged, "page directory");
        assert_eq!((directory.gpa, directory.bytes.len()), (layout::PML4, 4096));
        // Present, writable, large page.
        assert_eq!((word32(&directory, 0), word32(&directory, 1)), (0x83, 0x40_0083));
        assert_eq!(word32(&directory, 1023), 0xffc0_0083);
    }

    #[test]
    fn long_mode_has_64_bit_code_and_pae() {
        let (_, sregs) = registers(Mode::Long, 0x10_0000, 0x8ff0);
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4), (0x8000_0011, layout::PML4, 0x20));
        assert_eq!((sregs.efer, sregs.cs.db, sregs.cs.l), (0x500, 0, 1));
    }

    #[test]
    fn long_page_tables_lie_one_behind_the_other() {
        let tables = table(Mode::Long, "page tables");
        assert_eq!((tables.gpa, tables.bytes.len()), (layout::PML4, 6 * 4096));
        assert_eq!((word64(&tables, 0), word64(&tables, 1)), (layout::PDPT | 3, 0));
        // The page directory of the third GiB, and the large page at 2 MiB.
        assert_eq!(word64(&tables, 512 + 2), (layout::PDPT + 0x3000) | 3);
        assert_eq!(word64(&tables, 2 * 512 + 1), 0x20_0083);
    }

    #[test]
    fn descriptor_table_of_each_mode_is_the_textbook_one() {
        assert_eq!(word64(&table(Mode::Protected, "descriptor tables"), 2), 0x00cf_9b00_0000_ffff);
        assert_eq!(word64(&table(Mode::Long, "descriptor tables"), 2), 0x00af_9b00_0000_ffff);
        assert_eq!(word64(&table(Mode::Paged, "descriptor tables"), 3), 0x00cf_9300_0000_ffff);
    }

    /// The PML4's entry and the registers refer to the new addresses.
    #[test]
    fn tables_elsewhere_are_found_by_the_registers() {
        let places = Tables::Written { gdt: 0x2000, idt: 0x2030, page_tables: 0x1_0000 };
        let tables = Mode::Long.tables_at(places);
        assert_eq!(tables.iter().map(|table| table.gpa).collect::<Vec<_>>(), [0x2000, 0x2030, 0x1_0000]);
        assert_eq!((word64(&tables[2], 0), word64(&tables[2], 512)), (0x1_1003, 0x1_2003));
        let sregs = with_tables(Mode::Long, places);
        assert_eq!((sregs.gdt.base, sregs.idt.base, sregs.cr3), (0x2000, 0x2030, 0x1_0000));
    }

    #[test]
    fn tables_of_the_image_leave_the_table_registers_empty_and_the_segments_loaded() {
        let own = Tables::Own { page_tables: 0x2000 };
        assert_eq!(Mode::Long.tables_at(own), []);
        let sregs = with_tables(Mode::Long, own);
        assert_eq!((sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit), (0, 0, 0, 0));
        assert_eq!((sregs.cr3, sregs.cs.l, sregs.cs.present, sregs.ss.present), (0x2000, 1, 1, 1));
    }

    #[test]
    fn protected_mode_has_no_page_tables() {
        assert_eq!(with_tables(Mode::Protected, Tables::Own { page_tables: 0x2000 }).cr3, 0);
        assert_eq!(Mode::ALL.map(Mode::has_paging), [false, false, false, true, true]);
    }

    #[test]
    fn real_mode_and_reset_need_no_tables() {
        assert_eq!((Mode::Real.tables(), Mode::Reset.tables()), (vec![], vec![]));
    }
}
