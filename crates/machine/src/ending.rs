//! How a machine comes to its end, and what to say of it.

use std::fmt;

use vmm_vcpu::{Crash, CrashCause, Power};

use crate::doctor::{SOFTWARE_KVM, has_hardware_virtualization};

/// Where the code segment starts after a reset (Intel SDM volume 3, table 10-1): in the ROM, which no guest of
/// ours has.
const RESET_CS_BASE: u64 = 0xffff_0000;

/// How a machine came to its end.
#[derive(Debug)]
pub enum Ending {
    /// The guest switched itself off or reset itself.
    Guest(Power),
    /// The guest halted for ever.
    Halted,
    /// The guest died.
    Crashed(Box<Crash>),
    /// The user typed Ctrl-A x.
    Quit,
    /// The monitor was sent this signal.
    Signal(i32),
    /// Nobody reads the monitor's standard output any more.
    OutputGone,
}

impl fmt::Display for Ending {
    /// Several lines for a crash, one for all others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(Power::Off) => f.write_str("the guest powered off"),
            Self::Guest(Power::Reset) => f.write_str("the guest reset itself"),
            Self::Halted => f.write_str("the guest halted"),
            Self::Crashed(crash) => fmt_crash(crash, f),
            Self::Quit => f.write_str("Ctrl-A x"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutputGone => f.write_str("nobody reads standard output"),
        }
    }
}

fn fmt_crash(crash: &Crash, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the guest crashed: {}\n{}", crash.cause, crash.report)?;
    if crash.cause == CrashCause::TripleFault && crash.report.sregs.cs.base == RESET_CS_BASE {
        f.write_str(
            "\nKVM has reset the registers, as it does on AMD processors: these are not the guest's",
        )?;
    }
    // Without an instruction there is none that a better KVM could run.
    let has_instruction =
        |cause| matches!(cause, CrashCause::Emulation(failure) if !failure.instruction().is_empty());
    if has_instruction(crash.cause) && !has_hardware_virtualization() {
        write!(f, "\n{SOFTWARE_KVM}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triple_fault_with_reset_registers_says_that_they_are_not_the_guests() {
        let mut report = vmm_kvm::CrashReport::default();
        report.sregs.cs.base = RESET_CS_BASE;
        let crash = Crash { cause: CrashCause::TripleFault, report };
        let text = Ending::Crashed(Box::new(crash)).to_string();
        assert!(text.starts_with("the guest crashed: triple fault\nrip 0000000000000000"), "{text}");
        assert!(text.ends_with("these are not the guest's"), "{text}");
    }

    #[test]
    fn triple_fault_with_the_guests_registers_says_no_more() {
        let crash = Crash { cause: CrashCause::TripleFault, report: vmm_kvm::CrashReport::default() };
        let text = Ending::Crashed(Box::new(crash)).to_string();
        assert!(text.ends_with("outside of memory"), "{text}");
    }
}
