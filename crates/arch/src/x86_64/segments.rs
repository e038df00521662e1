//! Flat segments for protected mode and long mode, and their descriptor table.

use kvm_bindings::{kvm_segment, kvm_sregs};

/// Size of the code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// 32-bit, protected mode.
    Bits32,
    /// 64-bit, long mode.
    Bits64,
}

/// Selector of the code segment, Linux's `__BOOT_CS`.
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment, Linux's `__BOOT_DS`.
const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
const TASK_SELECTOR: u16 = 0x20;

/// Segment type (Intel SDM volume 3 §3.4.5.1, §3.5): code, execute and read, accessed.
pub(super) const TYPE_CODE: u8 = 0xb;
/// Segment type: data, read and write, accessed.
pub(super) const TYPE_DATA: u8 = 0x3;
/// Segment type: busy 32-bit or 64-bit task state segment.
const TYPE_BUSY_TASK: u8 = 0xb;

/// The GDT: two null entries, code, data, task state.
pub(super) fn gdt(code: Code) -> [u64; 5] {
    let [code, data, task] = segments(code);
    [0, 0, descriptor(&code), descriptor(&data), descriptor(&task)]
}

/// Loads the segment registers, and GDTR with the address of the GDT, or with an empty one for `None`.
pub(super) fn load(sregs: &mut kvm_sregs, code: Code, table: Option<u64>) {
    let [code, data, task] = segments(code);
    sregs.cs = code;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task;
    sregs.gdt.base = table.unwrap_or(0);
    sregs.gdt.limit = table.map_or(0, |_| (size_of::<[u64; 5]>() - 1) as u16);
}

/// The code, data and task state segments.
fn segments(code: Code) -> [kvm_segment; 3] {
    // A long-mode code segment has D clear and L set.
    let long = u8::from(code == Code::Bits64);
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: DATA_SELECTOR,
        type_: TYPE_DATA,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment { selector: CODE_SELECTOR, type_: TYPE_CODE, db: 1 - long, l: long, ..data };
    let task = kvm_segment {
        limit: 0x67,
        selector: TASK_SELECTOR,
        type_: TYPE_BUSY_TASK,
        present: 1,
        ..Default::default()
    };
    [code, data, task]
}

/// The 8-byte descriptor of a segment (Intel SDM volume 3 §3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let flags = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7
        | u64::from(segment.avl) << 12
        | u64::from(segment.l) << 13
        | u64::from(segment.db) << 14
        | u64::from(segment.g) << 15;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | flags << 40
        | (limit >> 16 & 0xf) << 48
        | (segment.base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_of_a_segment_with_a_base_splits_it() {
        let segment =
            kvm_segment { base: 0x1234_5678, limit: 0x67, type_: 0xb, present: 1, ..Default::default() };
        assert_eq!(descriptor(&segment), 0x1200_8b34_5678_0067);
    }

    #[test]
    fn segment_registers_name_the_entries_of_the_table() {
        let mut sregs = kvm_sregs::default();
        load(&mut sregs, Code::Bits32, Some(0x500));
        let gdt = gdt(Code::Bits32);
        assert_eq!(gdt[usize::from(sregs.cs.selector) / 8], 0x00cf_9b00_0000_ffff);
        assert_eq!(gdt[usize::from(sregs.ss.selector) / 8], 0x00cf_9300_0000_ffff);
        assert_eq!(gdt[usize::from(sregs.tr.selector) / 8], 0x0000_8b00_0000_0067);
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (0x500, 39));
    }
}
