//! Breakpoints, and the reasons for debug stops.

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
    kvm_debug_exit_arch, kvm_guest_debug,
};

/// Vector of a debug exception.
const DEBUG_VECTOR: u32 = 1;
/// Vector of `int3`.
const BREAKPOINT_VECTOR: u32 = 3;
/// DR6 bits of breakpoints 0 to 3 that were hit (Intel SDM volume 3 §18.2.3).
const DR6_BREAKPOINTS: u64 = 0xf;
/// DR6.BS: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DR7: bit 10 always reads as 1 (Intel SDM volume 3 §18.2.4).
const DR7_ALWAYS_SET: u64 = 1 << 10;

/// Breakpoints, which stop the guest with [`Exit::Debug`](crate::Exit::Debug). There are none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakpoints {
    /// The processor's four, for code and data. While any is set, the guest's own debug registers have no
    /// effect.
    pub hardware: [Option<HardwareBreakpoint>; 4],
    /// Whether `int3`, written over guest code by the monitor, stops the guest instead of raising an
    /// exception. A software KVM may raise the exception anyway.
    pub software: bool,
}

/// A hardware breakpoint or watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareBreakpoint {
    /// Linear address, aligned to the watched length.
    pub address: u64,
    /// The kind of access that stops the guest.
    pub on: BreakOn,
}

/// The kind of access for which a hardware breakpoint stops the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakOn {
    /// Execution of the instruction at the address. The guest stops before it, and would stop there again; to
    /// continue, remove the breakpoint for a single step.
    Execute,
    /// A store. The guest stops after it. A software KVM may not support this.
    Write(WatchLen),
    /// A load or a store. The guest stops after it. A software KVM may not support this.
    ReadWrite(WatchLen),
}

/// Number of bytes watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchLen {
    /// 1 byte.
    One,
    /// 2 bytes.
    Two,
    /// 4 bytes.
    Four,
    /// 8 bytes.
    Eight,
}

/// Where and why the guest stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugStop {
    /// Linear address of the next instruction; for a software breakpoint, of the `int3`.
    pub pc: u64,
    /// The exception that KVM intercepted: 1 (debug) or 3 (breakpoint).
    pub exception: u32,
    /// DR6: the conditions that were met. Bits of breakpoints that aren't set are clear.
    pub dr6: u64,
    /// DR7: the breakpoints that were enabled. Some KVMs leave it 0.
    pub dr7: u64,
}

/// The cause of a debug stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The hardware breakpoint with this index, the lowest if several were hit.
    Hardware(usize),
    /// An `int3`.
    Software,
    /// The end of a single step.
    SingleStep,
    /// Another cause, such as a task switch with the debug trap bit set.
    Other,
}

impl DebugStop {
    /// The cause of the stop. A breakpoint hit by a single step counts as the breakpoint.
    pub fn cause(&self) -> StopCause {
        match self.exception {
            BREAKPOINT_VECTOR => StopCause::Software,
            DEBUG_VECTOR if self.dr6 & DR6_BREAKPOINTS != 0 => {
                StopCause::Hardware(self.dr6.trailing_zeros() as usize)
            }
            DEBUG_VECTOR if self.dr6 & DR6_SINGLE_STEP != 0 => StopCause::SingleStep,
            _ => StopCause::Other,
        }
    }
}

impl BreakOn {
    /// R/W and LEN of DR7, with R/W in the lower two bits.
    fn dr7_bits(self) -> u64 {
        match self {
            Self::Execute => 0b00_00,
            Self::Write(len) => len.dr7_bits() << 2 | 0b01,
            Self::ReadWrite(len) => len.dr7_bits() << 2 | 0b11,
        }
    }
}

impl WatchLen {
    fn dr7_bits(self) -> u64 {
        match self {
            Self::One => 0b00,
            Self::Two => 0b01,
            Self::Four => 0b11,
            Self::Eight => 0b10,
        }
    }
}

/// The state that KVM_SET_GUEST_DEBUG sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GuestDebug {
    pub(super) breakpoints: Breakpoints,
    pub(super) single_step: bool,
}

impl GuestDebug {
    /// Decodes a debug exit. A processor may set DR6 bits of disabled breakpoints (Intel SDM volume 3
    /// §18.2.3), for example of one at address 0 whenever the instruction pointer is 0; they are cleared.
    pub(crate) fn stop(&self, debug: kvm_debug_exit_arch) -> DebugStop {
        let bits =
            self.breakpoints.hardware.iter().enumerate().filter(|(_, breakpoint)| breakpoint.is_some());
        let set: u64 = bits.map(|(i, _)| 1 << i).sum();
        let dr6 = debug.dr6 & (!DR6_BREAKPOINTS | set);
        DebugStop { pc: debug.pc, exception: debug.exception, dr6, dr7: debug.dr7 }
    }

    /// Encodes the state for KVM_SET_GUEST_DEBUG.
    pub(super) fn encode(&self) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug::default();
        let mut dr7 = DR7_ALWAYS_SET;
        for (i, breakpoint) in self.breakpoints.hardware.iter().enumerate() {
            let Some(breakpoint) = breakpoint else { continue };
            debug.arch.debugreg[i] = breakpoint.address;
            // Global enable: bit 1 of each breakpoint's pair. R/W and LEN: four bits per breakpoint, from bit
            // 16 on.
            dr7 |= 0b10 << (2 * i) | breakpoint.on.dr7_bits() << (16 + 4 * i);
        }
        if dr7 != DR7_ALWAYS_SET {
            debug.arch.debugreg[7] = dr7;
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
        }
        if self.breakpoints.software {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if self.single_step {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if debug.control != 0 {
            debug.control |= KVM_GUESTDBG_ENABLE;
        }
        debug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_debug_of_nothing_is_off() {
        assert_eq!(GuestDebug::default().encode(), kvm_guest_debug::default());
    }

    #[test]
    fn guest_debug_has_each_breakpoint_in_its_register() {
        let mut breakpoints = Breakpoints { software: true, ..Default::default() };
        breakpoints.hardware[0] = Some(HardwareBreakpoint { address: 0x1002, on: BreakOn::Execute });
        breakpoints.hardware[2] =
            Some(HardwareBreakpoint { address: 0x2000, on: BreakOn::Write(WatchLen::Eight) });
        breakpoints.hardware[3] =
            Some(HardwareBreakpoint { address: 0x3004, on: BreakOn::ReadWrite(WatchLen::Four) });
        let debug = GuestDebug { breakpoints, single_step: true }.encode();
        assert_eq!(debug.arch.debugreg, [0x1002, 0, 0x2000, 0x3004, 0, 0, 0, 0xf900_04a2]);
        let all =
            KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_USE_SW_BP;
        assert_eq!(debug.control, all);
    }

    #[test]
    fn watch_lengths_are_those_of_dr7() {
        let lens = [WatchLen::One, WatchLen::Two, WatchLen::Four, WatchLen::Eight];
        assert_eq!(lens.map(|len| BreakOn::Write(len).dr7_bits()), [0b0001, 0b0101, 0b1101, 0b1001]);
    }

    #[test]
    fn stop_has_no_bits_of_breakpoints_that_are_not_set() {
        // As reported by an emulated AMD processor after a step to address 0, to which the unused debug
        // registers point.
        let debug = kvm_debug_exit_arch { exception: 1, dr6: 0xffff_4fff, ..Default::default() };
        assert_eq!(GuestDebug::default().stop(debug).cause(), StopCause::SingleStep);
        let mut breakpoints = Breakpoints::default();
        breakpoints.hardware[2] = Some(HardwareBreakpoint { address: 0, on: BreakOn::Execute });
        let stop = GuestDebug { breakpoints, single_step: true }.stop(debug);
        assert_eq!((stop.cause(), stop.dr6), (StopCause::Hardware(2), 0xffff_4ff4));
    }

    fn cause(exception: u32, dr6: u64) -> StopCause {
        DebugStop { exception, dr6, ..Default::default() }.cause()
    }

    #[test]
    fn stop_is_told_apart_by_exception_and_dr6() {
        // Bits 4 to 11 and 16 to 31 of DR6 are always set.
        assert_eq!(cause(1, 0xffff_4ff0), StopCause::SingleStep);
        assert_eq!(cause(1, 0xffff_0ff4), StopCause::Hardware(2));
        assert_eq!(cause(1, 0xffff_4ff1), StopCause::Hardware(0));
        assert_eq!(cause(3, 0xffff_0ff0), StopCause::Software);
        assert_eq!(cause(1, 0xffff_8ff0), StopCause::Other);
    }
}
