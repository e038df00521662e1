//! Why the guest came back to us.

use std::fmt;

use crate::DebugStop;

/// A return from the guest. Borrowed data lies in the page shared with the kernel; answer a read before the
/// vCPU runs again.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in` or `ins`: fill `data`, which is `data.len() / width` accesses of `width` bytes each.
    PortIn {
        /// The port.
        port: u16,
        /// Bytes per access: 1, 2 or 4.
        width: usize,
        /// All accesses, one after the other.
        data: &'a mut [u8],
    },
    /// `out` or `outs`: take `data`, which is `data.len() / width` accesses of `width` bytes each.
    PortOut {
        /// The port.
        port: u16,
        /// Bytes per access: 1, 2 or 4.
        width: usize,
        /// All accesses, one after the other.
        data: &'a [u8],
    },
    /// A load from an address without memory: fill `data`, 1 to 8 bytes.
    MmioRead {
        /// Guest-physical address.
        gpa: u64,
        /// What the guest will see.
        data: &'a mut [u8],
    },
    /// A store to an address without memory, or to read-only memory.
    MmioWrite {
        /// Guest-physical address.
        gpa: u64,
        /// What the guest stored, 1 to 8 bytes.
        data: &'a [u8],
    },
    /// `hlt`, on a VM without in-kernel interrupt controllers.
    Halt,
    /// A triple fault.
    Shutdown,
    /// KVM_RUN was interrupted by a signal or by [`ImmediateExit`](crate::ImmediateExit). A port or MMIO
    /// access that was pending is complete.
    Interrupted,
    /// The guest can take an interrupt now, as [`request_interrupt_window`](crate::KvmVcpu::request_interrupt_window) asked.
    InterruptWindow,
    /// The guest has accessed its local APIC's task priority register, as
    /// [`report_tpr_access`](crate::KvmVcpu::report_tpr_access) asked.
    TprAccess {
        /// The instruction pointer at the access.
        rip: u64,
        /// Whether it was a write.
        is_write: bool,
    },
    /// The guest has lowered CR8, its task priority, on a VM without in-kernel interrupt controllers: an interrupt that was too
    /// low before may be due.
    TprLowered {
        /// Its new value.
        cr8: u64,
    },
    /// A breakpoint or a single step, which [`set_breakpoints`](crate::KvmVcpu::set_breakpoints) or
    /// [`set_single_step`](crate::KvmVcpu::set_single_step) asked for.
    Debug(DebugStop),
    /// KVM can't emulate the instruction at the instruction pointer.
    EmulationFailure(EmulationFailure),
    /// KVM gave up for another reason (KVM_EXIT_INTERNAL_ERROR).
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// The processor refused the guest's state (KVM_EXIT_FAIL_ENTRY).
    EntryFailure {
        /// The processor's reason.
        reason: u64,
    },
    /// A reason that this crate doesn't ask KVM for.
    Other {
        /// KVM_EXIT_*.
        reason: u32,
    },
}

/// An instruction that KVM met outside of what it emulates. A software KVM meets many; a hardware KVM only
/// those that touch MMIO, or run where the processor can't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationFailure {
    bytes: [u8; 15],
    len: usize,
}

impl EmulationFailure {
    /// From the bytes at the instruction pointer, of which at most 15, the longest instruction, are kept.
    pub fn new(instruction: &[u8]) -> Self {
        let mut failure = Self::default();
        failure.len = instruction.len().min(failure.bytes.len());
        failure.bytes[..failure.len].copy_from_slice(&instruction[..failure.len]);
        failure
    }

    /// The bytes at the instruction pointer; empty where KVM doesn't tell.
    pub fn instruction(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for EmulationFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.instruction().iter().enumerate() {
            write!(f, "{}{byte:02x}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}
