//! The guest-physical memory map.
//!
//! ```text
//! 0x0000_0500           GDT and an empty IDT, for the protected-mode and long-mode entries
//! 0x0000_5000           multiboot information, memory map and module list; strings from 0x6000 on
//! 0x0000_6000           PVH start info, its module list and its memory map; never with multiboot
//! 0x0000_7000           zero page (struct boot_params)
//! 0x0000_9000           identity page tables: PML4, PDPT, four page directories; or one 32-bit directory
//! 0x0002_0000           command line, at most 64 KiB
//! 0x0009_fc00           end of conventional memory; then the EBDA, video memory, BIOS area
//! 0x000f_0000           end of a reset-vector image, which ends at 1 MiB
//! 0x0010_0000           RAM from 1 MiB: kernel, initrd, flat image, multiboot modules
//! 0xc000_0000           32-bit MMIO gap: devices, IO-APIC, local APICs, KVM's own pages
//! 0xc000_0000           PCI configuration spaces (ECAM), inside the gap
//! 0xc010_0000           BARs of PCI functions, inside the gap
//! 0xd000_0000           registers of virtio devices, a page each, inside the gap
//! 0xffff_0000           alias of the last 64 KiB below 1 MiB, for a reset-vector image
//! 0x1_0000_0000         the rest of RAM
//! ```

use std::ops::Range;

/// Global descriptor table for the boot segments.
pub const GDT: u64 = 0x500;
/// Interrupt descriptor table, empty.
pub const IDT: u64 = 0x530;
/// Multiboot information (GNU Multiboot 0.6.96 §3.3, 116 bytes).
pub const MULTIBOOT_INFO: u64 = 0x5000;
/// Boot loader name of the multiboot information, at most 128 bytes with its NUL.
pub const MULTIBOOT_LOADER_NAME: u64 = 0x5080;
/// Multiboot memory map: 24-byte entries up to the module list, so at most 74.
pub const MULTIBOOT_MEMORY_MAP: u64 = 0x5100;
/// Multiboot module list: 16-byte entries up to the strings, so at most 128.
pub const MULTIBOOT_MODULES: u64 = 0x5800;
/// Module strings with their NULs, up to the zero page: 4 KiB. Shares its place with the PVH structures.
pub const MULTIBOOT_STRINGS: u64 = 0x6000;
/// PVH start info (struct hvm_start_info, 56 bytes).
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list: one 32-byte entry, the initrd.
pub const PVH_MODULES: u64 = 0x6040;
/// PVH memory map: 24-byte entries up to the zero page, so at most 165.
pub const PVH_MEMORY_MAP: u64 = 0x6080;
/// Zero page (struct boot_params, one page).
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the initial stack for Linux; the kernel immediately switches to its own.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Length of the initial stack in bytes: from just above the zero page to [`BOOT_STACK`].
pub const BOOT_STACK_LEN: u64 = 0xf00;
/// Page map level 4, or the only page directory in 32-bit paged mode.
pub const PML4: u64 = 0x9000;
/// Page directory pointer table, followed by its four page directories.
pub const PDPT: u64 = 0xa000;
/// Kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Maximum length of the command line with its NUL, in bytes: up to 0x3_0000.
pub const CMDLINE_MAX_LEN: u64 = 0x1_0000;
/// End of conventional memory: 640 KiB less 1 KiB of EBDA, as on every PC.
pub const EBDA: u64 = 0x9_fc00;
/// Start of the hole for video memory and option ROMs.
pub const VIDEO: u64 = 0xa_0000;
/// Start of the BIOS area, which kernels search for tables such as the RSDP.
pub const BIOS: u64 = 0xf_0000;
/// First byte of high memory, where kernels are loaded.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// End of a reset-vector image: 1 MiB, exclusive.
pub const RESET_IMAGE_END: u64 = 0x10_0000;
/// Alias of the last 64 KiB below [`RESET_IMAGE_END`], inside the gap, up to 4 GiB.
///
/// The first instruction is fetched from CS base 0xffff_0000 and IP 0xfff0 (Intel SDM volume 3 §10.1.4); a
/// far jump then loads CS with a base below 1 MiB.
pub const RESET_ALIAS: u64 = 0xffff_0000;
/// The 32-bit MMIO gap: 1 GiB, enough for an ECAM window and 32-bit BARs.
pub const MMIO_GAP: Range<u64> = 0xc000_0000..0x1_0000_0000;
/// Memory-mapped configuration spaces of PCI bus 0 (ECAM), 1 MiB, at the start of the gap.
pub const PCI_ECAM: u64 = 0xc000_0000;
/// Addresses for the BARs of PCI functions, inside the gap.
pub const PCI_WINDOW: Range<u64> = 0xc010_0000..0xd000_0000;
/// Registers of virtio devices by MMIO, a page each, inside the gap.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Global system interrupts of virtio devices, in allocation order: first those that no PC device uses, then
/// those of PC devices that don't exist here (sound, parallel ports, mouse, disks). 0 is the PIT, 1 the
/// keyboard, 2 the cascade, 3 COM2, 4 COM1, 8 the real-time clock, 9 the SCI, 13 the floating-point unit.
pub const VIRTIO_GSIS: [u32; 16] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15];
/// Interrupts of virtio devices on the kernel command line, in allocation order: first those that a PC
/// without ACPI has, then those for which a kernel needs the [MP table](crate::mptable). 9 is the last of the
/// PC's, because it is the SCI for a kernel that does use ACPI, and Linux from 6.8 on doesn't share it.
pub const VIRTIO_CMDLINE_IRQS: [u32; 17] = [5, 6, 7, 10, 11, 12, 14, 15, 9, 16, 17, 18, 19, 20, 21, 22, 23];
/// Interrupts of a PC without an IO-APIC: those of its two 8259s, which are also the IO-APIC's first pins.
pub const PIC_IRQS: u32 = 16;
/// The cascade: the first 8259's input that is connected to the second. No device can use it.
pub const PIC_CASCADE_IRQ: u32 = 2;
/// Pins of the IO-APIC. KVM routes each global system interrupt to the pin of the same number.
pub const IOAPIC_PINS: u32 = 24;
/// IO-APIC registers, inside the gap, emulated by KVM.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Local APIC registers, inside the gap, emulated by KVM.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// One page for KVM's identity map (KVM_SET_IDENTITY_MAP_ADDR), inside the gap, below the TSS.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM's task state segment (KVM_SET_TSS_ADDR), inside the gap.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// Area of the ACPI tables, followed by the MP table: the BIOS area, which kernels search for both.
pub const ACPI_TABLES: Range<u64> = BIOS..HIGH_MEMORY;

/// The guest-physical ranges for `len` bytes of RAM, a multiple of the page size: from 0 up to the MMIO gap,
/// then from 4 GiB on.
pub fn ram_ranges(len: u64) -> Vec<Range<u64>> {
    let low = len.min(MMIO_GAP.start);
    let mut ranges = vec![0..low];
    if len > low {
        ranges.push(MMIO_GAP.end..MMIO_GAP.end + (len - low));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ram_up_to_the_gap_is_one_range() {
        assert_eq!(ram_ranges(3 << 30), [0..0xc000_0000]);
    }

    #[test]
    fn ram_one_page_past_the_gap_continues_at_4_gib() {
        assert_eq!(ram_ranges((3 << 30) + 4096), [0..0xc000_0000, 0x1_0000_0000..0x1_0000_1000]);
    }

    #[test]
    fn kvm_pages_lie_in_the_gap_apart_from_each_other() {
        assert!(MMIO_GAP.contains(&KVM_IDENTITY_MAP));
        assert_eq!(KVM_IDENTITY_MAP + 0x1000, KVM_TSS);
        const { assert!(KVM_TSS + 3 * 0x1000 <= MMIO_GAP.end) };
    }

    #[test]
    fn virtio_registers_lie_in_the_gap_below_the_controllers() {
        const { assert!(MMIO_GAP.start < VIRTIO_MMIO && VIRTIO_MMIO + 17 * 0x1000 <= IOAPIC) };
    }

    /// No other device uses them, and the IO-APIC has 24 pins.
    #[test]
    fn virtio_interrupts_are_free_pins_each_once() {
        let mut gsis = VIRTIO_GSIS.to_vec();
        gsis.sort_unstable();
        gsis.dedup();
        assert_eq!(gsis.len(), VIRTIO_GSIS.len());
        assert!(gsis.iter().all(|gsi| *gsi < 24 && ![0, 1, 2, 4, 8, 9, 13].contains(gsi)));
    }

    /// The SCI is among them: a kernel without ACPI doesn't enable it.
    #[test]
    fn virtio_interrupts_on_the_command_line_are_free_lines_each_once() {
        let mut irqs = VIRTIO_CMDLINE_IRQS.to_vec();
        irqs.sort_unstable();
        irqs.dedup();
        assert_eq!(irqs.len(), VIRTIO_CMDLINE_IRQS.len());
        assert!(irqs.iter().all(|irq| *irq < IOAPIC_PINS && ![0, 1, 2, 3, 4, 8, 13].contains(irq)));
    }

    /// Linux rejects the others if it doesn't know of an IO-APIC.
    #[test]
    fn virtio_interrupts_on_the_command_line_start_with_those_of_the_8259s() {
        assert!(VIRTIO_CMDLINE_IRQS.is_sorted_by_key(|irq| *irq >= PIC_IRQS));
        assert_eq!(VIRTIO_CMDLINE_IRQS[..9], [5, 6, 7, 10, 11, 12, 14, 15, 9]);
    }

    #[test]
    fn reset_alias_ends_at_4_gib_apart_from_kvm_pages() {
        const { assert!(KVM_TSS + 3 * 0x1000 <= RESET_ALIAS) };
        assert_eq!(MMIO_GAP.end - RESET_ALIAS, RESET_IMAGE_END - BIOS);
    }

    /// The areas that any boot method may use, plus `special`, which only one of them uses.
    fn low_memory(special: &[Range<u64>]) -> Vec<Range<u64>> {
        let below = [GDT..GDT + 8 * 5, IDT..IDT + 8];
        let above = [
            ZERO_PAGE..ZERO_PAGE + 0x1000,
            BOOT_STACK - BOOT_STACK_LEN..BOOT_STACK,
            PML4..PML4 + 0x1000,
            PDPT..PDPT + 0x5000,
            CMDLINE..CMDLINE + CMDLINE_MAX_LEN,
            EBDA..VIDEO,
            VIDEO..BIOS,
            BIOS..HIGH_MEMORY,
        ];
        [&below[..], special, &above].concat()
    }

    #[test]
    fn boot_structures_do_not_overlap() {
        let pieces = low_memory(&[
            PVH_START_INFO..PVH_START_INFO + 56,
            PVH_MODULES..PVH_MODULES + 32,
            PVH_MEMORY_MAP..ZERO_PAGE,
        ]);
        assert!(pieces.windows(2).all(|w| w[0].end <= w[1].start), "{pieces:x?}");
    }

    #[test]
    fn multiboot_structures_do_not_overlap() {
        let pieces = low_memory(&[
            MULTIBOOT_INFO..MULTIBOOT_INFO + 116,
            MULTIBOOT_LOADER_NAME..MULTIBOOT_LOADER_NAME + 0x80,
            MULTIBOOT_MEMORY_MAP..MULTIBOOT_MEMORY_MAP + 24 * 74,
            MULTIBOOT_MODULES..MULTIBOOT_MODULES + 16 * 128,
            MULTIBOOT_STRINGS..ZERO_PAGE,
        ]);
        assert!(pieces.windows(2).all(|w| w[0].end <= w[1].start), "{pieces:x?}");
    }

    proptest! {
        #[test]
        fn ram_ranges_add_up_and_spare_the_gap(pages in 1u64..(1 << 24)) {
            let ranges = ram_ranges(pages * 4096);
            prop_assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), pages * 4096);
            prop_assert!(ranges.iter().all(|r| r.end <= MMIO_GAP.start || r.start >= MMIO_GAP.end));
        }
    }
}
