//! The initial registers for each kernel boot protocol.
//!
//! | protocol | processor mode | argument | source |
//! |---|---|---|---|
//! | [`Protocol::Linux64`] | long mode, first 4 GiB identity-mapped | `rsi` = zero page | Linux x86 boot protocol, "64-bit boot protocol" |
//! | [`Protocol::Linux32`] | flat protected mode, no paging | `esi` = zero page | Linux x86 boot protocol, "32-bit boot protocol" |
//! | [`Protocol::Pvh`] | flat protected mode, no paging | `ebx` = start info | Xen, docs/misc/pvh.pandoc |
//!
//! Interrupts are off in all three.

use kvm_bindings::{kvm_lapic_state, kvm_regs, kvm_sregs};

use super::layout;
use super::segments::{self, Code};

/// A kernel boot protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux's 64-bit entry: the entry point of an ELF, or offset 0x200 of a bzImage's protected-mode code.
    Linux64,
    /// Linux's 32-bit entry: the start of a bzImage's protected-mode code.
    Linux32,
    /// The PVH entry, given by an ELF's Xen note.
    Pvh,
}

/// A kernel's entry point and boot protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// The boot protocol.
    pub protocol: Protocol,
    /// Guest-physical address of the first instruction.
    pub rip: u64,
    /// Guest-physical address of the zero page or, for PVH, of the start info.
    pub params: u64,
}

/// CR0.PE: protected mode. Control register bits are from Intel SDM volume 3 §2.5.
pub(super) const CR0_PE: u64 = 1;
/// CR0.ET: always 1 since the 486.
pub(super) const CR0_ET: u64 = 1 << 4;
/// CR0.PG: paging.
pub(super) const CR0_PG: u64 = 1 << 31;
/// CR4.PAE: 8-byte page table entries.
pub(super) const CR4_PAE: u64 = 1 << 5;
/// EFER.LME and EFER.LMA: long mode enabled and active.
pub(super) const EFER_LONG_MODE: u64 = (1 << 8) | (1 << 10);

/// Page table entry bits: present and writable.
pub(super) const PTE_PRESENT_WRITE: u64 = 0b11;
/// Page directory entry bit 7: a 2 MiB page, or a 4 MiB page in a directory of 4-byte entries.
pub(super) const PDE_LARGE: u64 = 1 << 7;
/// Size of a page, in bytes.
const PAGE_LEN: u64 = 0x1000;
/// Page directories below the PDPT: 1 GiB each, 4 GiB in total.
const PAGE_DIRECTORIES: u64 = 4;

impl Protocol {
    /// Whether the kernel is entered in long mode and therefore needs [`page_tables`].
    pub fn is_long_mode(self) -> bool {
        self == Self::Linux64
    }

    fn code(self) -> Code {
        if self.is_long_mode() { Code::Bits64 } else { Code::Bits32 }
    }

    /// The GDT to write at [`layout::GDT`]: two null entries, code, data, task state.
    pub fn gdt(self) -> [u64; 5] {
        segments::gdt(self.code())
    }
}

/// Page tables that identity-map the first 4 GiB with 2 MiB pages, as pairs of a page's address and its
/// entries.
pub fn page_tables() -> Vec<(u64, Vec<u64>)> {
    page_tables_at(layout::PML4)
}

/// [`page_tables`] with the PML4 at page-aligned address `pml4`, followed by the PDPT and its page
/// directories, a page each.
pub fn page_tables_at(pml4: u64) -> Vec<(u64, Vec<u64>)> {
    let pdpt = pml4 + PAGE_LEN;
    let directory = |n: u64| pdpt + (n + 1) * PAGE_LEN;
    let mut tables = vec![
        (pml4, vec![pdpt | PTE_PRESENT_WRITE]),
        (pdpt, (0..PAGE_DIRECTORIES).map(|n| directory(n) | PTE_PRESENT_WRITE).collect()),
    ];
    for n in 0..PAGE_DIRECTORIES {
        let page = |i: u64| (n << 30) + (i << 21);
        tables.push((directory(n), (0..512).map(|i| page(i) | PTE_PRESENT_WRITE | PDE_LARGE).collect()));
    }
    tables
}

impl EntryPoint {
    /// The general-purpose registers.
    pub fn regs(self) -> kvm_regs {
        let mut regs = kvm_regs {
            rip: self.rip,
            // Bit 1 is always set; IF is clear.
            rflags: 2,
            ..Default::default()
        };
        match self.protocol {
            Protocol::Linux64 | Protocol::Linux32 => {
                regs.rsi = self.params;
                regs.rsp = layout::BOOT_STACK;
                regs.rbp = layout::BOOT_STACK;
            }
            Protocol::Pvh => regs.rbx = self.params,
        }
        regs
    }

    /// Sets the special registers for the entry, keeping what KVM set and the entry doesn't define, such as
    /// the APIC base.
    pub fn apply_to(self, sregs: &mut kvm_sregs) {
        segments::load(sregs, self.protocol.code(), Some(layout::GDT));
        sregs.idt.base = layout::IDT;
        sregs.idt.limit = (size_of::<u64>() - 1) as u16;
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
        if self.protocol.is_long_mode() {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = layout::PML4;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LONG_MODE;
        }
    }
}

/// Offsets in the legacy region of an XSAVE area, in 32-bit words: FCW and FSW share the first word, MXCSR is
/// the seventh. MXCSR_MASK belongs to the processor. XMM15 ends at byte 416 (Intel SDM volume 1 §10.5.1).
const XSAVE_FCW: usize = 0;
const XSAVE_MXCSR: usize = 6;
const XSAVE_MXCSR_MASK: usize = 7;
const XSAVE_LEGACY_WORDS: usize = 416 / 4;
/// XSTATE_BV, the first word of the header at byte 512, and its x87 and SSE bits.
const XSAVE_XSTATE_BV: usize = 512 / 4;
const X87_AND_SSE: u32 = 0b11;

/// Sets the x87 FPU to its state after FNINIT and SSE to its state after reset in an XSAVE area, given as
/// 32-bit words (Intel SDM volume 1 §8.1, §10.2.3).
pub fn init_fpu(xsave: &mut [u32]) {
    xsave[..XSAVE_MXCSR_MASK].fill(0);
    xsave[XSAVE_MXCSR_MASK + 1..XSAVE_LEGACY_WORDS].fill(0);
    xsave[XSAVE_FCW] = 0x37f;
    xsave[XSAVE_MXCSR] = 0x1f80;
    xsave[XSAVE_XSTATE_BV] |= X87_AND_SSE;
}

/// Offsets in the local APIC's register page: id, LVT LINT0 and LVT LINT1.
const APIC_ID: usize = 0x20;
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
/// Delivery modes, in bits 10:8 of an LVT entry. Bit 16, the mask, stays 0.
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_EXTINT: u32 = 7 << 8;

/// Wires the local APIC as PC firmware does: LINT0 receives the 8259's interrupts, LINT1 NMIs.
///
/// Without an MP table or a MADT, a kernel stays in this "virtual wire" mode; without this wiring it would
/// never see a timer interrupt.
pub fn wire_local_apic(lapic: &mut kvm_lapic_state) {
    set_register(lapic, LVT_LINT0, DELIVER_EXTINT);
    set_register(lapic, LVT_LINT1, DELIVER_NMI);
}

fn set_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (register, byte) in lapic.regs[offset..].iter_mut().zip(value.to_le_bytes()) {
        *register = byte as _;
    }
}

/// IA32_APIC_BASE bit 10: x2APIC mode (Intel SDM volume 3 §11.12.1).
const X2APIC_MODE: u64 = 1 << 10;

/// Switches the local APIC, which must be enabled, to x2APIC mode, where its id register holds all 32 bits of
/// the id.
///
/// Firmware does this before boot if there are APIC ids from 255 on (Intel SDM volume 3 §11.12.7). Otherwise
/// Linux ignores processors with such ids (arch/x86/kernel/acpi/boot.c, acpi_parse_x2apic).
pub fn enable_x2apic(sregs: &mut kvm_sregs, lapic: &mut kvm_lapic_state, id: u32) {
    sregs.apic_base |= X2APIC_MODE;
    set_register(lapic, APIC_ID, id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gdt_long_mode_holds_the_textbook_descriptors() {
        // Flat 64-bit code, flat data, busy TSS with limit 0x67.
        let expected = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];
        assert_eq!(Protocol::Linux64.gdt(), expected);
    }

    #[test]
    fn gdt_protected_mode_code_is_32_bit() {
        assert_eq!(Protocol::Linux32.gdt()[2], 0x00cf_9b00_0000_ffff);
    }

    #[test]
    fn page_tables_map_an_address_to_itself() {
        let tables = page_tables();
        let entry = |page: u64, index: u64| {
            let (_, entries) = tables.iter().find(|(gpa, _)| *gpa == page).unwrap();
            entries[index as usize]
        };
        let address = 0xfee0_1234_u64;
        let pdpt = entry(layout::PML4, 0) & !0xfff;
        let directory = entry(pdpt, address >> 30) & !0xfff;
        let page = entry(directory, address >> 21 & 0x1ff);
        assert_eq!(page & 0xfff, PTE_PRESENT_WRITE | PDE_LARGE);
        assert_eq!((page & !0x1f_ffff) | (address & 0x1f_ffff), address);
    }

    #[test]
    fn linux32_enters_flat_protected_mode_without_paging() {
        let entry = EntryPoint { protocol: Protocol::Linux32, rip: 0x10_0000, params: 0x1_0000 };
        let mut sregs = kvm_sregs { cr4: !0, efer: !0, ..Default::default() };
        entry.apply_to(&mut sregs);
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
        assert_eq!((sregs.cs.base, sregs.cs.limit, sregs.cs.db, sregs.cs.l), (0, 0xffff_ffff, 1, 0));
        assert_eq!((entry.regs().rip, entry.regs().rsi), (0x10_0000, 0x1_0000));
        assert_eq!(entry.regs().rflags & 0x200, 0, "interrupts are off");
    }

    #[test]
    fn linux64_enters_long_mode_with_the_identity_map() {
        let entry = EntryPoint { protocol: Protocol::Linux64, rip: 0x100_0000, params: layout::ZERO_PAGE };
        let mut sregs = kvm_sregs::default();
        entry.apply_to(&mut sregs);
        assert_eq!(sregs.cr0, 0x8000_0011);
        assert_eq!((sregs.cr3, sregs.cr4, sregs.efer), (layout::PML4, 0x20, 0x500));
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.ds.db), (1, 0, 1));
    }

    #[test]
    fn pvh_passes_the_start_info_in_ebx() {
        let regs = EntryPoint { protocol: Protocol::Pvh, rip: 0x100_0850, params: 0x6000 }.regs();
        assert_eq!((regs.rbx, regs.rsi), (0x6000, 0));
    }

    #[test]
    fn x2apic_mode_leaves_the_base_and_the_enable_bit_and_has_the_whole_id() {
        let mut sregs = kvm_sregs { apic_base: 0xfee0_0900, ..Default::default() };
        let mut lapic = kvm_lapic_state::default();
        // As in xAPIC mode, where bits 31:24 hold bits 7:0 of the id.
        lapic.regs[0x23] = 0x2c;
        enable_x2apic(&mut sregs, &mut lapic, 0x12c);
        assert_eq!(sregs.apic_base, 0xfee0_0d00);
        assert_eq!(lapic.regs[0x20..0x24], [0x2c, 1, 0, 0]);
    }

    #[test]
    fn fpu_of_an_area_in_use_is_initialized_and_the_rest_left() {
        let mut xsave = [u32::MAX; 1024];
        // XSTATE_BV: AVX.
        xsave[128] = 4;
        init_fpu(&mut xsave);
        assert_eq!(xsave[..9], [0x37f, 0, 0, 0, 0, 0, 0x1f80, u32::MAX, 0]);
        assert_eq!(
            (xsave[103], xsave[104]),
            (0, u32::MAX),
            "XMM15 is cleared, the area for software is kept"
        );
        assert_eq!((xsave[128], xsave[129]), (7, u32::MAX));
    }

    #[test]
    fn local_apic_lint0_is_extint_and_lint1_nmi() {
        let mut lapic = kvm_lapic_state::default();
        wire_local_apic(&mut lapic);
        assert_eq!(lapic.regs[0x351] as u8, 7);
        assert_eq!(lapic.regs[0x361] as u8, 4);
    }
}
