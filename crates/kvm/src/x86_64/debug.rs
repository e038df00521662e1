//! Single steps and breakpoints.

use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::breakpoints::{Breakpoints, GuestDebug};
use crate::error::Named;
use crate::{Error, KvmVcpu};

impl KvmVcpu {
    /// Enables or disables single steps: an [`Exit::Debug`](crate::Exit::Debug) after each instruction.
    /// Breakpoints are unaffected.
    ///
    /// KVM implements it by setting the guest's trap flag. Enable it again before each entry: the processor
    /// clears the flag when it delivers an interrupt, and KVM clears it after emulating an instruction.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_single_step(&mut self, on: bool) -> Result<(), Error> {
        self.set_guest_debug(GuestDebug { single_step: on, ..self.guest_debug })
    }

    /// Replaces the breakpoints. Single-step mode is unaffected.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_breakpoints(&mut self, breakpoints: Breakpoints) -> Result<(), Error> {
        self.set_guest_debug(GuestDebug { breakpoints, ..self.guest_debug })
    }

    /// Clears the trap flag in the flags that the guest's last instruction, a `pushf`, stored. KVM sets that
    /// flag for a single step, and the processor stores it.
    ///
    /// # Errors
    /// The guest's stack isn't in its memory, or an ioctl failed.
    pub fn clear_pushed_trap_flag(&self) -> Result<(), Error> {
        let (regs, sregs) = (self.regs()?, self.sregs()?);
        let stack = match (sregs.cs.l, sregs.ss.db) {
            (0, 0) => sregs.ss.base + (regs.rsp & 0xffff),
            (0, _) => (sregs.ss.base + regs.rsp) & 0xffff_ffff,
            _ => regs.rsp,
        };
        // TF is bit 8, the lowest bit of the second byte. Both bytes are in the same page: stack pointers are
        // even.
        let gpa = self.fd.translate_gva(stack).named("KVM_TRANSLATE")?.physical_address;
        let flags = GuestAddress(gpa + 1);
        for ram in &self.memory.ram {
            let Ok(byte) = ram.memory().read_obj::<u8>(flags) else { continue };
            let written = ram.memory().write_obj(byte & !1, flags);
            return written.map_err(|_| Error::NoMemory { gpa });
        }
        Err(Error::NoMemory { gpa })
    }

    fn set_guest_debug(&mut self, debug: GuestDebug) -> Result<(), Error> {
        self.fd.set_guest_debug(&debug.encode()).named("KVM_SET_GUEST_DEBUG")?;
        self.guest_debug = debug;
        Ok(())
    }
}
