//! How a machine comes to its end, and what to say of it.

use std::fmt;

use vmm_bus::SystemEvent;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{Crash, CrashCause};

use crate::Mismatch;
use crate::doctor::{SOFTWARE_KVM, has_hardware_virtualization};
use crate::platform;

/// Exit code for a guest that crashed, panicked, or isn't as expected.
const GUEST_FAILED: u8 = 5;
/// Exit code for a run that took too long, as timeout(1) has it.
const TIME_IS_UP: u8 = 124;
/// Added to the number of the signal that ended the monitor, as a shell does.
const BY_SIGNAL: u8 = 128;
/// SIGPIPE: what a program that doesn't handle a closed output dies of.
const PIPE_SIGNAL: u8 = 13;

/// How a machine came to its end.
#[derive(Debug)]
pub enum Ending {
    /// The guest ended it.
    Guest(SystemEvent),
    /// The user reset the machine.
    Reset,
    /// The guest halted for ever, in the state that was expected, if one was.
    Halted,
    /// The guest halted for ever, and isn't in the state that was expected.
    Unexpected(Vec<Mismatch>),
    /// The guest died.
    Crashed(Box<Crash>),
    /// The user quit, by a key or a command.
    Quit,
    /// The user quit by this signal.
    Signal(i32),
    /// Nobody reads the monitor's standard output any more.
    OutputGone,
    /// The run's time was over.
    TimeIsUp(Late),
}

/// Where a run was when its time was over.
#[derive(Debug)]
pub enum Late {
    /// There was no guest yet: the monitor was doing this.
    Starting(String),
    /// The guest had reset its machine, and the next one wasn't there: the monitor was doing this.
    Restarting(String),
    /// The guest ran, with its vCPUs there; none, if they didn't leave it.
    Running(Vec<(u32, VcpuReport)>),
    /// The guest had ended, and what it printed last was on its way.
    LastOutput,
}

impl Ending {
    /// The guest's own end is told after its last words; the user's wish is granted at once.
    pub(crate) fn waits_for_output(&self) -> bool {
        match self {
            Self::Guest(_) | Self::Halted | Self::Unexpected(_) | Self::Crashed(_) => true,
            Self::Reset | Self::Quit | Self::Signal(_) | Self::OutputGone | Self::TimeIsUp(_) => false,
        }
    }

    /// The exit code of a monitor whose machine ended so.
    pub fn exit_code(&self) -> u8 {
        match *self {
            Self::Guest(SystemEvent::PowerOff | SystemEvent::Reset) => 0,
            Self::Guest(SystemEvent::Exit(code)) => code,
            Self::Reset | Self::Halted | Self::Quit => 0,
            Self::Guest(SystemEvent::Panic) | Self::Crashed(_) | Self::Unexpected(_) => GUEST_FAILED,
            Self::TimeIsUp(_) => TIME_IS_UP,
            Self::OutputGone => BY_SIGNAL + PIPE_SIGNAL,
            Self::Signal(signal) => BY_SIGNAL.wrapping_add(signal as u8),
        }
    }

    /// Whether the machine was reset, by whom ever.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Guest(SystemEvent::Reset) | Self::Reset)
    }

    /// Whether the user asked for it.
    pub(crate) fn is_asked_for(&self) -> bool {
        matches!(self, Self::Quit | Self::Signal(_) | Self::TimeIsUp(_))
    }

    /// Whether the user is told of it in any case, as of an error.
    pub fn is_told(&self) -> bool {
        matches!(
            self,
            Self::Guest(SystemEvent::Panic) | Self::Crashed(_) | Self::Unexpected(_) | Self::TimeIsUp(_)
        )
    }
}

impl fmt::Display for Ending {
    /// One line, but more where there is more to see: a crash, an unexpected state, a run that took too long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(event) => fmt_event(*event, f),
            Self::Reset => f.write_str("the machine was reset"),
            Self::Halted => f.write_str("the guest halted"),
            Self::Unexpected(mismatches) => fmt_mismatches(mismatches, f),
            Self::Crashed(crash) => fmt_crash(crash, f),
            Self::Quit => f.write_str("quit by the user"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutputGone => f.write_str("nobody reads standard output"),
            Self::TimeIsUp(late) => fmt_time_is_up(late, f),
        }
    }
}

fn fmt_event(event: SystemEvent, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        SystemEvent::PowerOff => f.write_str("the guest powered off"),
        SystemEvent::Reset => f.write_str("the guest reset itself"),
        SystemEvent::Panic => f.write_str("the guest's kernel panicked; its console has the reason"),
        SystemEvent::Exit(code) => write!(f, "the guest ended the monitor with exit code {code}"),
    }
}

fn fmt_mismatches(mismatches: &[Mismatch], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the guest halted in a state that wasn't expected")?;
    mismatches.iter().try_for_each(|mismatch| write!(f, "\n{mismatch}"))
}

fn fmt_time_is_up(late: &Late, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match late {
        Late::Starting(doing) => write!(f, "the timeout has passed before the guest ran: {doing}"),
        Late::Restarting(doing) => {
            write!(f, "the timeout has passed while the guest was being restarted: {doing}")
        }
        Late::LastOutput => {
            f.write_str("the timeout has passed while the last of the guest's output was on its way")
        }
        Late::Running(reports) => {
            f.write_str("the timeout has passed and the guest hasn't ended")?;
            reports.iter().try_for_each(|(index, report)| write!(f, "\nvcpu{index}:\n{report}"))
        }
    }
}

fn fmt_crash(crash: &Crash, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the guest crashed: {}\n{}", crash.cause, crash.report)?;
    if let Some(note) = platform::crash_note(crash) {
        write!(f, "\n{note}")?;
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
    fn event_of_the_guest_is_its_exit_code() {
        let code = |event| Ending::Guest(event).exit_code();
        assert_eq!(code(SystemEvent::PowerOff), 0);
        assert_eq!(code(SystemEvent::Reset), 0);
        assert_eq!(code(SystemEvent::Panic), 5);
        assert_eq!(code(SystemEvent::Exit(43)), 43);
    }

    #[test]
    fn panic_of_the_guest_is_told_and_its_other_events_are_not() {
        let is_told = |event| Ending::Guest(event).is_told();
        assert!(is_told(SystemEvent::Panic));
        assert!(!is_told(SystemEvent::PowerOff) && !is_told(SystemEvent::Reset));
        assert!(!is_told(SystemEvent::Exit(1)));
    }

    #[test]
    fn triple_fault_with_reset_registers_says_that_they_are_not_the_guests() {
        let mut report = vmm_kvm::VcpuReport::default();
        report.sregs.cs.base = 0xffff_0000;
        let crash = Crash { cause: CrashCause::TripleFault, report };
        let text = Ending::Crashed(Box::new(crash)).to_string();
        assert!(text.starts_with("the guest crashed: triple fault\nrip 0000000000000000"), "{text}");
        assert!(text.ends_with("these are not the guest's"), "{text}");
    }

    #[test]
    fn triple_fault_with_the_guests_registers_says_no_more() {
        let crash = Crash { cause: CrashCause::TripleFault, report: vmm_kvm::VcpuReport::default() };
        let text = Ending::Crashed(Box::new(crash)).to_string();
        assert!(text.ends_with("outside of memory"), "{text}");
    }

    #[test]
    fn time_that_is_up_before_the_guest_runs_says_what_the_monitor_was_doing() {
        let ending = Ending::TimeIsUp(Late::Starting("reading the kernel".to_owned()));
        assert_eq!(ending.to_string(), "the timeout has passed before the guest ran: reading the kernel");
    }
}
