//! Where a guest stops, and why it has.

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
    kvm_debug_exit_arch, kvm_guest_debug,
};

/// Vector of a debug exception.
const DEBUG_VECTOR: u32 = 1;
/// Vector of `int3`.
const BREAKPOINT_VECTOR: u32 = 3;
/// DR6: the breakpoints 0 to 3 that were met, one bit each (Intel SDM volume 3 §18.2.3).
const DR6_BREAKPOINTS: u64 = 0xf;
/// DR6.BS: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DR7: bit 10 always reads as 1 (Intel SDM volume 3 §18.2.4).
const DR7_ALWAYS_SET: u64 = 1 << 10;

/// Where a guest stops, with [`Exit::Debug`](crate::Exit::Debug). The default is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakpoints {
    /// The processor's four, for code and data. While there is one, the guest's own debug registers have no effect.
    pub hardware: [Option<HardwareBreakpoint>; 4],
    /// Whether `int3`, which the monitor has written over the guest's code, stops the guest instead of raising its exception. A
    /// software KVM may raise the exception all the same.
    pub software: bool,
}

/// An address that the processor watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareBreakpoint {
    /// Linear address, a multiple of the length that is watched.
    pub address: u64,
    /// What stops the guest there.
    pub on: BreakOn,
}

/// Which use of an address stops the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakOn {
    /// Executing the instruction there: the guest stops before it, and would stop there again. To pass, take the breakpoint
    /// away for a single step.
    Execute,
    /// A store: the guest stops after it. A software KVM may not watch data.
    Write(WatchLen),
    /// A load or a store: the guest stops after it. A software KVM may not watch data.
    ReadWrite(WatchLen),
}

/// How many bytes are watched.
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

/// Why and where a guest has stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugStop {
    /// Linear address of the instruction that comes next; of a software breakpoint that of the `int3`.
    pub pc: u64,
    /// The exception that KVM has caught: 1 (debug) or 3 (breakpoint).
    pub exception: u32,
    /// DR6 of the stop: what was met. Bits of breakpoints that aren't set are clear.
    pub dr6: u64,
    /// DR7 of the stop: what was watched. Some KVMs leave it 0.
    pub dr7: u64,
}

/// What stopped a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The hardware breakpoint with this number, the lowest if several were met.
    Hardware(usize),
    /// An `int3`.
    Software,
    /// The end of a single step.
    SingleStep,
    /// None of these, such as a task switch with its debug bit set.
    Other,
}

impl DebugStop {
    /// What stopped the guest. A breakpoint that is met by a single step counts as the breakpoint.
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
    /// R/W and LEN of DR7, R/W in the lower two bits.
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

/// All that KVM_SET_GUEST_DEBUG sets at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GuestDebug {
    pub(super) breakpoints: Breakpoints,
    pub(super) single_step: bool,
}

impl GuestDebug {
    /// What KVM says of a stop. A processor may set the bit of a breakpoint that is disabled (Intel SDM volume 3 §18.2.3), as one
    /// at address 0 whenever the instruction pointer is 0.
    pub(crate) fn stop(&self, debug: kvm_debug_exit_arch) -> DebugStop {
        let bits =
            self.breakpoints.hardware.iter().enumerate().filter(|(_, breakpoint)| breakpoint.is_some());
        let set: u64 = bits.map(|(i, _)| 1 << i).sum();
        let dr6 = debug.dr6 & (!DR6_BREAKPOINTS | set);
        DebugStop { pc: debug.pc, exception: debug.exception, dr6, dr7: debug.dr7 }
    }

    /// What KVM is given.
    pub(super) fn encode(&self) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug::default();
        let mut dr7 = DR7_ALWAYS_SET;
        for (i, breakpoint) in self.breakpoints.hardware.iter().enumerate() {
            let Some(breakpoint) = breakpoint else { continue };
            debug.arch.debugreg[i] = breakpoint.address;
            // Enabled for all tasks: bit 1 of a pair of bits for each. R/W and LEN: four bits for each, from bit 16 on.
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
        // As an emulated AMD processor has it after a step to address 0, where the unused debug registers point.
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
