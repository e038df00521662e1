//! Guest-physical addresses used by KVM.

use std::ops::Range;

use vmm_arch::layout;

/// The identity map, and each set of registers, takes one page.
const PAGE_LEN: u64 = 0x1000;
/// KVM api.rst KVM_SET_TSS_ADDR: three pages.
const TSS_LEN: u64 = 3 * PAGE_LEN;

/// KVM's reserved pages, and with `irqchip` the registers of the interrupt controllers that it emulates.
pub(crate) fn emulated_ranges(irqchip: bool) -> Vec<(&'static str, Range<u64>)> {
    let range = |start, len| start..start + len;
    let mut ranges = vec![
        ("KVM identity map", range(layout::KVM_IDENTITY_MAP, PAGE_LEN)),
        ("KVM task state segment", range(layout::KVM_TSS, TSS_LEN)),
    ];
    if irqchip {
        ranges.push(("IO-APIC (KVM)", range(layout::IOAPIC, PAGE_LEN)));
        ranges.push(("local APICs (KVM)", range(layout::LOCAL_APIC, PAGE_LEN)));
    }
    ranges
}
