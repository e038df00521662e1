//! How a run ended: its exit code and its message.

use std::fmt;

use vmm_bus::SystemEvent;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{Crash, CrashCause};

use crate::Mismatch;
use crate::doctor::{SOFTWARE_KVM, has_hardware_virtualization};
use crate::platform;

/// Exit code for a host that failed.
const HOST_FAILED: u8 = 4;
/// Exit code for a guest that crashed, panicked or halted in an unexpected state.
const GUEST_FAILED: u8 = 5;
/// Exit code for a run that timed out, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// Added to the number of the signal that ended the monitor, as by a shell.
const BY_SIGNAL: u8 = 128;
/// SIGPIPE, which kills a program that writes to a closed pipe.
const PIPE_SIGNAL: u8 = 13;
const HANG_UP_SIGNAL: i32 = 1;

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// The guest ended it: power-off, reset, panic, or an exit code.
    Guest(SystemEvent),
    /// The user reset the machine.
    Reset,
    /// The guest halted for good, in the expected state if the config has one.
    Halted,
    /// The guest halted for good, in a state other than the expected one.
    Unexpected(Vec<Mismatch>),
    /// The guest can't continue, for example after a triple fault.
    Crashed(Box<Crash>),
    /// The user quit, by a key or a command.
    Quit,
    /// The machine was saved and ended, by a command.
    Saved,
    /// This signal ended the monitor.
    Signal(i32),
    /// The reader of the monitor's standard output has closed it.
    OutputClosed,
    /// The run's timeout expired.
    TimedOut(TimeoutPhase),
}

/// The phase of a run in which its timeout expired.
#[derive(Debug)]
pub enum TimeoutPhase {
    /// Before the first guest ran, while the monitor did this (a gerund phrase).
    Starting(String),
    /// Between a reset and the next machine, while the monitor did this (a gerund phrase).
    Restarting(String),
    /// While the guest ran: each vCPU's index and state, none if a vCPU didn't leave the guest.
    Running(Vec<(u32, VcpuReport)>),
    /// After the guest's end, while its last output was being written.
    LastOutput,
}

impl Ending {
    /// Whether the guest's output is drained first: if the guest ended by itself, not if the user ended it.
    pub(crate) fn waits_for_output(&self) -> bool {
        match self {
            Self::Guest(_) | Self::Halted | Self::Unexpected(_) | Self::Crashed(_) => true,
            Self::Reset
            | Self::Quit
            | Self::Saved
            | Self::Signal(_)
            | Self::OutputClosed
            | Self::TimedOut(_) => false,
        }
    }

    /// The monitor's exit code: 0 to 255, as in docs/keys-and-exit-codes.md.
    pub fn exit_code(&self) -> u8 {
        match *self {
            Self::Guest(SystemEvent::PowerOff | SystemEvent::Reset) => 0,
            Self::Guest(SystemEvent::Exit(code)) => code,
            Self::Reset | Self::Halted | Self::Quit | Self::Saved => 0,
            Self::Guest(SystemEvent::Panic) | Self::Crashed(_) | Self::Unexpected(_) => GUEST_FAILED,
            Self::TimedOut(_) => TIMED_OUT,
            Self::OutputClosed => BY_SIGNAL + PIPE_SIGNAL,
            Self::Signal(signal) => BY_SIGNAL.wrapping_add(signal as u8),
        }
    }

    /// The exit code if the guest may have lost what a device had completed: other than of an ending that is in order.
    pub(crate) fn exit_code_with_losses(&self) -> u8 {
        match self {
            Self::Guest(SystemEvent::PowerOff | SystemEvent::Reset | SystemEvent::Exit(_))
            | Self::Reset
            | Self::Halted
            | Self::Quit
            | Self::Saved => HOST_FAILED,
            Self::Guest(SystemEvent::Panic)
            | Self::Crashed(_)
            | Self::Unexpected(_)
            | Self::TimedOut(_)
            | Self::OutputClosed
            | Self::Signal(_) => self.exit_code(),
        }
    }

    /// Whether the machine was reset, by the guest or the user.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Guest(SystemEvent::Reset) | Self::Reset)
    }

    /// Whether it is a reason to wait no longer for what an end that is under way still has to do: the user asked for it, by a key,
    /// a command, a signal or a timeout. But not SIGHUP: a terminal that hangs up ends the output and sends SIGHUP from the kernel
    /// and from the shell, and the user asked for one end.
    pub(crate) fn ends_waiting(&self) -> bool {
        match self {
            Self::Signal(signal) => *signal != HANG_UP_SIGNAL,
            Self::Quit | Self::TimedOut(_) => true,
            _ => false,
        }
    }

    /// Whether it is reported as an error, whatever the log level.
    pub fn is_error(&self) -> bool {
        matches!(
            self,
            Self::Guest(SystemEvent::Panic) | Self::Crashed(_) | Self::Unexpected(_) | Self::TimedOut(_)
        )
    }
}

impl fmt::Display for Ending {
    /// One line; more for a crash, an unexpected state and a timeout.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(event) => fmt_event(*event, f),
            Self::Reset => f.write_str("the machine was reset"),
            Self::Halted => f.write_str("the guest halted"),
            Self::Unexpected(mismatches) => fmt_mismatches(mismatches, f),
            Self::Crashed(crash) => fmt_crash(crash, f),
            Self::Quit => f.write_str("quit by the user"),
            Self::Saved => f.write_str("saved and ended by the user"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutputClosed => f.write_str("standard output was closed by its reader"),
            Self::TimedOut(phase) => fmt_timed_out(phase, f),
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
    f.write_str("the guest halted in an unexpected state")?;
    mismatches.iter().try_for_each(|mismatch| write!(f, "\n{mismatch}"))
}

fn fmt_timed_out(phase: &TimeoutPhase, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match phase {
        TimeoutPhase::Starting(activity) => {
            write!(f, "timed out before the guest ran: {activity}")
        }
        TimeoutPhase::Restarting(activity) => {
            write!(f, "timed out while restarting the guest: {activity}")
        }
        TimeoutPhase::LastOutput => f.write_str("timed out while writing the guest's last output"),
        TimeoutPhase::Running(reports) => {
            f.write_str("timed out while the guest was running")?;
            reports.iter().try_for_each(|(index, report)| write!(f, "\nvcpu{index}:\n{report}"))
        }
    }
}

fn fmt_crash(crash: &Crash, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the guest crashed: {}\n{}", crash.cause, crash.report)?;
    if let Some(note) = platform::crash_note(crash) {
        write!(f, "\n{note}")?;
    }
    // Without the instruction it isn't known that another KVM could emulate it.
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
    fn ending_in_order_with_losses_is_a_failure_of_the_host() {
        let code = |ending: Ending| ending.exit_code_with_losses();
        assert_eq!(code(Ending::Guest(SystemEvent::PowerOff)), 4);
        assert_eq!(code(Ending::Guest(SystemEvent::Exit(33))), 4);
        assert_eq!(code(Ending::Quit), 4);
        assert_eq!(code(Ending::Guest(SystemEvent::Panic)), 5);
        assert_eq!(code(Ending::Signal(15)), 143);
    }

    #[test]
    fn panic_of_the_guest_is_an_error_and_its_other_events_are_not() {
        let is_error = |event| Ending::Guest(event).is_error();
        assert!(is_error(SystemEvent::Panic));
        assert!(!is_error(SystemEvent::PowerOff) && !is_error(SystemEvent::Reset));
        assert!(!is_error(SystemEvent::Exit(1)));
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
    fn timeout_before_the_guest_runs_shows_what_the_monitor_was_doing() {
        let ending = Ending::TimedOut(TimeoutPhase::Starting("reading the kernel".to_owned()));
        assert_eq!(ending.to_string(), "timed out before the guest ran: reading the kernel");
    }
}
