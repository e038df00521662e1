//! The run loop: enter the guest, dispatch the exit, again.

use std::fmt;

use vmm_kvm::kvm_bindings::KVM_EXIT_DEBUG;
use vmm_kvm::{DebugStop, EmulationFailure, Exit, VcpuReport};

use crate::{Cpu, Entry, ExitHandler, Flow};

/// Why a vCPU runs no more. `S` is the handler's own reason.
#[derive(Debug)]
pub enum End<S> {
    /// The handler ended it.
    Asked(S),
    /// `hlt`, on a machine without in-kernel interrupt controllers, in this state.
    Halted(Box<VcpuReport>),
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
    pub report: VcpuReport,
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

/// An exit that the processor itself is looked at for, which must wait until the exit's data isn't borrowed any more.
enum Whole {
    Halt,
    Shutdown,
    Debug(DebugStop),
    InterruptWindow,
    TprAccess { rip: u64, is_write: bool },
    TprLowered { cr8: u64 },
    Crash(CrashCause),
}

/// Enters the guest once and answers its exit. [`End::Stopped`] means that KVM_RUN was interrupted, and the guest may be entered
/// again.
pub(crate) fn step<C, H>(cpu: &mut C, handler: &mut H) -> Result<Flow<End<H::Stop>>, vmm_kvm::Error>
where
    C: Cpu,
    H: ExitHandler<C>,
{
    handler.before_run(cpu);
    let answered = answer(cpu, handler)?;
    Ok(match (answered, handler.after_run(cpu).map(End::Asked)) {
        // An interruption is looked into before a hold: whoever had no room still has none after the next exit.
        (Flow::Stop(End::Stopped), asked @ Flow::Stop(_)) => asked,
        (answered, after) => answered.and(after),
    })
}

fn answer<C, H>(cpu: &mut C, handler: &mut H) -> Result<Flow<End<H::Stop>>, vmm_kvm::Error>
where
    C: Cpu,
    H: ExitHandler<C>,
{
    let (exit, interrupted) = match handler.entry() {
        Entry::Guest => (cpu.run()?, Flow::Stop(End::Stopped)),
        Entry::CompleteAccess => (cpu.complete_access()?, Flow::Enter),
    };
    let whole = match exit {
        Exit::PortOut { port, width, data } => {
            return Ok(port_out(handler, port, width, data).map(End::Asked));
        }
        Exit::PortIn { port, width, data } => {
            port_in(handler, port, width, data);
            return Ok(Flow::Enter);
        }
        Exit::MmioRead { gpa, data } => {
            data.fill(0xff);
            handler.mmio_read(gpa, data);
            return Ok(Flow::Enter);
        }
        Exit::MmioWrite { gpa, data } => return Ok(handler.mmio_write(gpa, data).map(End::Asked)),
        Exit::Interrupted => return Ok(interrupted),
        Exit::Halt => Whole::Halt,
        Exit::Shutdown => Whole::Shutdown,
        Exit::Debug(stop) => Whole::Debug(stop),
        Exit::InterruptWindow => Whole::InterruptWindow,
        Exit::TprAccess { rip, is_write } => Whole::TprAccess { rip, is_write },
        Exit::TprLowered { cr8 } => Whole::TprLowered { cr8 },
        Exit::EmulationFailure(failure) => Whole::Crash(CrashCause::Emulation(failure)),
        Exit::InternalError { suberror } => Whole::Crash(CrashCause::Internal(suberror)),
        Exit::EntryFailure { reason } => Whole::Crash(CrashCause::Entry(reason)),
        Exit::Other { reason } => Whole::Crash(CrashCause::UnexpectedExit(reason)),
    };
    let (answered, cause) = match whole {
        Whole::Halt => match handler.halt(cpu) {
            Some(flow) => return Ok(flow.map(End::Asked)),
            None => return Ok(Flow::Stop(End::Halted(Box::new(cpu.report())))),
        },
        Whole::Shutdown => (handler.shutdown(cpu), CrashCause::TripleFault),
        Whole::Debug(stop) => (handler.debug(cpu, stop), CrashCause::UnexpectedExit(KVM_EXIT_DEBUG)),
        Whole::InterruptWindow => return Ok(handler.interrupt_window(cpu).map(End::Asked)),
        Whole::TprAccess { rip, is_write } => {
            return Ok(handler.tpr_access(cpu, rip, is_write).map(End::Asked));
        }
        Whole::TprLowered { cr8 } => return Ok(handler.tpr_lowered(cpu, cr8).map(End::Asked)),
        Whole::Crash(cause) => (None, cause),
    };
    if let Some(flow) = answered {
        return Ok(flow.map(End::Asked));
    }
    let report = cpu.report();
    Ok(Flow::Stop(End::Crashed(Box::new(Crash { cause, report }))))
}

fn port_out<C, H: ExitHandler<C>>(handler: &mut H, port: u16, width: usize, data: &[u8]) -> Flow<H::Stop> {
    if data.len() == width {
        return handler.port_out(port, data);
    }
    handler.string_out(port, width, data)
}

fn port_in<C, H: ExitHandler<C>>(handler: &mut H, port: u16, width: usize, data: &mut [u8]) {
    data.fill(0xff);
    if data.len() == width {
        return handler.port_in(port, data);
    }
    handler.string_in(port, width, data);
}

/// Runs `cpu` on this thread until the guest ends or a signal interrupts it. [`Flow::Hold`] is not obeyed
/// here: there is nobody to say when it is over.
///
/// # Errors
/// KVM_RUN failed.
pub fn run<C, H>(cpu: &mut C, handler: &mut H) -> Result<End<H::Stop>, vmm_kvm::Error>
where
    C: Cpu,
    H: ExitHandler<C>,
{
    loop {
        if let Flow::Stop(end) = step(cpu, handler)? {
            return Ok(end);
        }
    }
}
