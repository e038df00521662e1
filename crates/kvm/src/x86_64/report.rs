//! A human-readable report of a vCPU's state.

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::KvmVcpu;

/// The longest x86 instruction, in bytes.
const MAX_INSTRUCTION_LEN: usize = 15;

/// A vCPU's registers and the bytes at its instruction pointer.
#[derive(Clone, Debug, Default)]
pub struct VcpuReport {
    /// General-purpose registers.
    pub regs: kvm_regs,
    /// Segments and control registers.
    pub sregs: kvm_sregs,
    /// Up to 15 bytes at the instruction pointer; empty if it points to no memory.
    pub code: Vec<u8>,
}

impl KvmVcpu {
    /// Reports the current state. Whatever can't be read is zero.
    pub fn report(&self) -> VcpuReport {
        VcpuReport {
            regs: self.regs().unwrap_or_default(),
            sregs: self.sregs().unwrap_or_default(),
            code: self.bytes_at_instruction_pointer(),
        }
    }

    /// The bytes at the instruction pointer, translated by the guest's page tables. They end at a page
    /// boundary.
    pub(crate) fn bytes_at_instruction_pointer(&self) -> Vec<u8> {
        let (Ok(regs), Ok(sregs)) = (self.regs(), self.sregs()) else { return Vec::new() };
        let linear = sregs.cs.base.wrapping_add(regs.rip);
        let Ok(translation) = self.fd.translate_gva(linear) else { return Vec::new() };
        if translation.valid == 0 {
            return Vec::new();
        }
        let gpa = translation.physical_address;
        let len = MAX_INSTRUCTION_LEN.min(0x1000 - (gpa & 0xfff) as usize);
        let mut code = vec![0; len];
        if self.memory.read(gpa, &mut code) { code } else { Vec::new() }
    }
}

impl fmt::Display for VcpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.regs;
        let s = &self.sregs;
        writeln!(f, "rip {:016x}  rflags {:016x}", r.rip, r.rflags)?;
        writeln!(f, "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}", r.rsi, r.rdi, r.rbp, r.rsp)?;
        writeln!(f, "r8  {:016x}  r9  {:016x}  r10 {:016x}  r11 {:016x}", r.r8, r.r9, r.r10, r.r11)?;
        writeln!(f, "r12 {:016x}  r13 {:016x}  r14 {:016x}  r15 {:016x}", r.r12, r.r13, r.r14, r.r15)?;
        writeln!(f, "cr0 {:016x}  cr2 {:016x}  cr3 {:016x}  cr4 {:016x}", s.cr0, s.cr2, s.cr3, s.cr4)?;
        writeln!(
            f,
            "efer {:x}  gdt {:x}+{:x}  idt {:x}+{:x}",
            s.efer, s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit
        )?;
        for (name, segment) in [("cs", &s.cs), ("ss", &s.ss), ("ds", &s.ds), ("es", &s.es)] {
            writeln!(f, "{name} {}", Segment(segment))?;
        }
        write!(f, "code")?;
        if self.code.is_empty() {
            return write!(f, " unreadable: the instruction pointer is outside of memory");
        }
        self.code.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

struct Segment<'a>(&'a kvm_segment);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        write!(f, "{:04x} base {:x} limit {:x} type {:x}", s.selector, s.base, s.limit, s.type_)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_shows_registers_and_code() {
        let regs = kvm_regs { rip: 0x10_0000, rax: 42, ..Default::default() };
        let report = VcpuReport { regs, code: vec![0x0f, 0x0b], ..Default::default() };
        let text = report.to_string();
        assert!(text.starts_with("rip 0000000000100000  rflags"), "{text}");
        assert!(text.contains("rax 000000000000002a"), "{text}");
        assert!(text.ends_with("code 0f 0b"), "{text}");
    }

    #[test]
    fn report_without_code_says_why() {
        let text = VcpuReport::default().to_string();
        assert!(text.ends_with("code unreadable: the instruction pointer is outside of memory"), "{text}");
    }
}
