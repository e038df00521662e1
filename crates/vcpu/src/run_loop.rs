//! The run loop: enter the guest, dispatch the exit, again.

use std::fmt;

use vmm_bus::{Outcome, Power};
use vmm_kvm::{CrashReport, EmulationFailure, Exit};

use crate::{Cpu, ExitHandler};

/// Why a vCPU runs no more.
#[derive(Debug)]
pub enum End {
    /// The guest changed the machine's power state.
    Power(Power),
    /// `hlt`, on a machine without in-kernel interrupt controllers.
    Halted,
    /// The guest is beyond rescue.
    Crashed(Box<Crash>),
    /// It was told to stop, or [`run`] was interrupted.
    Stopped,
}

/// A guest's death.
#[derive(Debug)]
pub struct Crash {
    /// What it died of.
    pub cause: CrashCause,
    /// The state of its processor.
    pub report: CrashReport,
}

/// What a guest died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// An exception while the double fault handler was entered: the processor shut down.
    TripleFault,
    /// An instruction that KVM can't emulate.
    Emulation(EmulationFailure),
    /// Another KVM_INTERNAL_ERROR_*.
    Internal(u32),
    /// The processor refused the state, with this reason.
    Entry(u64),
    /// An exit that nobody asked for, KVM_EXIT_*.
    UnexpectedExit(u32),
}

impl fmt::Display for CrashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => write!(f, "triple fault"),
            Self::Emulation(failure) if failure.instruction().is_empty() => {
                write!(f, "instruction pointer outside of memory")
            }
            Self::Emulation(failure) => write!(f, "KVM can't emulate the instruction {failure}"),
            Self::Internal(suberror) => write!(f, "KVM internal error, suberror {suberror}"),
            Self::Entry(reason) => write!(f, "the processor refused to enter the guest, reason {reason:#x}"),
            Self::UnexpectedExit(reason) => write!(f, "unexpected exit, KVM_EXIT reason {reason}"),
        }
    }
}

/// What to do after an exit.
#[derive(Debug)]
pub(crate) enum Next {
    /// Enter the guest again.
    Enter,
    /// Enter it when the device's owner says so.
    Hold,
    /// Somebody wants something of us.
    Interrupted,
    /// Never again.
    End(End),
}

impl From<Outcome> for Next {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Enter,
            Outcome::Hold => Self::Hold,
            Outcome::Power(power) => Self::End(End::Power(power)),
        }
    }
}

/// Enters the guest once and answers its exit.
pub(crate) fn step<C: Cpu, H: ExitHandler>(cpu: &mut C, handler: &mut H) -> Result<Next, vmm_kvm::Error> {
    let cause = match cpu.run()? {
        Exit::PortOut { port, width, data } => return Ok(port_out(handler, port, width, data)),
        Exit::PortIn { port, width, data } => {
            data.fill(0xff);
            data.chunks_mut(width).for_each(|element| handler.port_in(port, element));
            return Ok(Next::Enter);
        }
        Exit::MmioRead { gpa, data } => {
            data.fill(0xff);
            handler.mmio_read(gpa, data);
            return Ok(Next::Enter);
        }
        Exit::MmioWrite { gpa, data } => return Ok(handler.mmio_write(gpa, data).into()),
        Exit::Interrupted => return Ok(Next::Interrupted),
        Exit::Halt => return Ok(Next::End(End::Halted)),
        Exit::Shutdown => CrashCause::TripleFault,
        Exit::EmulationFailure(failure) => CrashCause::Emulation(failure),
        Exit::InternalError { suberror } => CrashCause::Internal(suberror),
        Exit::EntryFailure { reason } => CrashCause::Entry(reason),
        Exit::Debug { .. } => CrashCause::UnexpectedExit(vmm_kvm::kvm_bindings::KVM_EXIT_DEBUG),
        Exit::Other { reason } => CrashCause::UnexpectedExit(reason),
    };
    let report = cpu.crash_report();
    Ok(Next::End(End::Crashed(Box::new(Crash { cause, report }))))
}

/// Gives the elements of a string instruction to the handler one by one. What a device asked for last and
/// strongest counts: an end before a hold before nothing.
fn port_out<H: ExitHandler>(handler: &mut H, port: u16, width: usize, data: &[u8]) -> Next {
    let mut next = Next::Enter;
    for element in data.chunks(width) {
        match handler.port_out(port, element) {
            Outcome::Done => {}
            Outcome::Hold => next = Next::Hold,
            outcome @ Outcome::Power(_) => return outcome.into(),
        }
    }
    next
}

/// Runs `cpu` on this thread until the guest ends or a signal interrupts it. [`Outcome::Hold`] is not
/// obeyed here: there is nobody to say when it is over.
///
/// # Errors
/// KVM_RUN failed.
pub fn run<C: Cpu, H: ExitHandler>(cpu: &mut C, handler: &mut H) -> Result<End, vmm_kvm::Error> {
    loop {
        match step(cpu, handler)? {
            Next::Enter | Next::Hold => {}
            Next::Interrupted => return Ok(End::Stopped),
            Next::End(end) => return Ok(end),
        }
    }
}
