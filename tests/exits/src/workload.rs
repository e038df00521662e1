//! The guests: loops that cause exits and do nothing else.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// Length of guest RAM, which starts at address 0, in bytes: all that real mode reaches with a segment base of 0.
pub(crate) const RAM_LEN: usize = 0x1_0000;
/// The port to which firmware writes progress codes; no device of a PC responds to it.
pub(crate) const PORT: u16 = 0x80;
/// An address without memory, in the range of a PC's devices.
pub(crate) const MMIO_GPA: u64 = 0xd000_0000;
/// Elements of one `rep outsb`. Every measurement is a multiple of it, so that each ends after a whole string, however many elements
/// the host's KVM passes in one exit.
pub(crate) const STRING_LEN: u64 = 1024;
/// Address of the string: a separate page, because KVM splits strings at page boundaries.
const STRING: u64 = 0x1000;

/// One kind of exit.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// The instruction that causes the exit.
    pub(crate) instruction: &'static str,
    /// Machine code, loaded and entered at address 0.
    pub(crate) code: &'static [u8],
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Real,
    Protected,
}

pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "port output",
        instruction: "out 0x80, al in 16-bit real mode",
        code: &[
            0xe6, 0x80, // out 0x80, al
            0xeb, 0xfc, // jmp to the out
        ],
        mode: Mode::Real,
    },
    Workload {
        name: "MMIO",
        instruction: "mov [0xd0000000], eax in 32-bit protected mode",
        code: &[
            0xa3, 0x00, 0x00, 0x00, 0xd0, // mov [0xd0000000], eax
            0xeb, 0xf9, // jmp to the mov
        ],
        mode: Mode::Protected,
    },
    Workload {
        name: "string output",
        instruction: "rep outsb of 1,024 bytes in 16-bit real mode",
        code: &[
            0xbe, 0x00, 0x10, // mov si, 0x1000
            0xb9, 0x00, 0x04, // mov cx, 1024
            0xf3, 0x6e, // rep outsb
            0xeb, 0xf6, // jmp to the mov
        ],
        mode: Mode::Real,
    },
];

impl Workload {
    /// Sets a new vCPU's registers for the first instruction. No other crate of ours is used, because this is shared with the bare
    /// variant.
    pub(crate) fn apply_to(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        // Bit 1 of the flags is always set; the direction flag is clear, so addresses of strings increase.
        *regs = kvm_regs { rip: 0, rsi: STRING, rdx: PORT.into(), rflags: 2, ..Default::default() };
        match self.mode {
            // All other segments have base 0 after reset.
            Mode::Real => (sregs.cs.base, sregs.cs.selector) = (0, 0),
            Mode::Protected => enter_protected_mode(sregs),
        }
    }
}

/// Sets flat segments of 4 GiB (Intel SDM volume 3 §3.4.5). The guest loads no segments and causes no exceptions, so it needs no tables
/// in memory.
fn enter_protected_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x18,
        type_: 0x3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: 0x10, type_: 0xb, ..data };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    // CR0.PE.
    sregs.cr0 |= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_each_workload_has_the_constants() {
        assert_eq!(u16::from(ALL[0].code[1]), PORT);
        assert_eq!(ALL[1].code[1..5], (MMIO_GPA as u32).to_le_bytes());
        assert_eq!(ALL[2].code[1..3], (STRING as u16).to_le_bytes());
        assert_eq!(ALL[2].code[4..6], (STRING_LEN as u16).to_le_bytes());
    }

    #[test]
    fn code_of_each_workload_ends_with_a_jump_to_its_start() {
        let back = ALL.iter().map(|w| -i16::from(*w.code.last().unwrap() as i8));
        assert!(back.eq(ALL.iter().map(|w| w.code.len() as i16)));
    }
}
