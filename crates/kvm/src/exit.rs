//! VM exits.

use std::fmt;

use crate::DebugStop;

/// The reason for which KVM_RUN returned. Borrowed data is in the page shared with the kernel; fill in the
/// data of a read before the vCPU runs again.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in` or `ins`: fill `data`, which holds `data.len() / width` accesses of `width` bytes each.
    PortIn {
        /// I/O port.
        port: u16,
        /// Bytes per access: 1, 2 or 4.
        width: usize,
        /// Data of all accesses, in order.
        data: &'a mut [u8],
    },
    /// `out` or `outs`: `data` holds `data.len() / width` accesses of `width` bytes each.
    PortOut {
        /// I/O port.
        port: u16,
        /// Bytes per access: 1, 2 or 4.
        width: usize,
        /// Data of all accesses, in order.
        data: &'a [u8],
    },
    /// A load from an address without memory: fill `data`, 1 to 8 bytes.
    MmioRead {
        /// Guest-physical address.
        gpa: u64,
        /// The bytes that the guest will load.
        data: &'a mut [u8],
    },
    /// A store to an address without memory, or to read-only memory.
    MmioWrite {
        /// Guest-physical address.
        gpa: u64,
        /// The bytes stored, 1 to 8.
        data: &'a [u8],
    },
    /// `hlt`, on a VM without in-kernel interrupt controllers.
    Halt,
    /// A triple fault.
    Shutdown,
    /// A signal or [`ImmediateExit`](crate::ImmediateExit) interrupted KVM_RUN. A pending port or MMIO access
    /// has been completed.
    Interrupted,
    /// The guest can take an interrupt now, as requested by
    /// [`request_interrupt_window`](crate::KvmVcpu::request_interrupt_window).
    InterruptWindow,
    /// The guest accessed its local APIC's task priority register, and
    /// [`report_tpr_access`](crate::KvmVcpu::report_tpr_access) is enabled.
    TprAccess {
        /// Instruction pointer at the access.
        rip: u64,
        /// Whether the access was a write.
        is_write: bool,
    },
    /// The guest lowered CR8, its task priority, on a VM without in-kernel interrupt controllers. A pending
    /// interrupt of lower priority may now be deliverable.
    TprLowered {
        /// New value of CR8.
        cr8: u64,
    },
    /// A breakpoint was hit or a single step completed, as requested by
    /// [`set_breakpoints`](crate::KvmVcpu::set_breakpoints) or
    /// [`set_single_step`](crate::KvmVcpu::set_single_step).
    Debug(DebugStop),
    /// KVM can't emulate the instruction at the instruction pointer.
    EmulationFailure(EmulationFailure),
    /// KVM stopped for another reason (KVM_EXIT_INTERNAL_ERROR).
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// The processor refused the guest state (KVM_EXIT_FAIL_ENTRY).
    EntryFailure {
        /// Hardware entry failure reason.
        reason: u64,
    },
    /// An exit that this crate never enables.
    Other {
        /// KVM_EXIT_*.
        reason: u32,
    },
}

/// An instruction that KVM doesn't emulate. KVM on hardware emulates only instructions that access MMIO or
/// that the processor can't execute in the guest's mode; a software KVM emulates, and fails on, many more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationFailure {
    bytes: [u8; 15],
    len: usize,
}

impl EmulationFailure {
    /// Takes the bytes at the instruction pointer, of which it keeps at most 15, the longest instruction.
    pub fn new(instruction: &[u8]) -> Self {
        let mut failure = Self::default();
        failure.len = instruction.len().min(failure.bytes.len());
        failure.bytes[..failure.len].copy_from_slice(&instruction[..failure.len]);
        failure
    }

    /// The bytes at the instruction pointer; empty if KVM doesn't provide them.
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
