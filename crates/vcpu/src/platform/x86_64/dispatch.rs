//! Dispatches exits to call-backs.

use vmm_kvm::kvm_bindings::KVM_EXIT_DEBUG;
use vmm_kvm::{DebugStop, Exit};

use super::crash_cause::CrashCause;
use super::handler::ExitHandler;
use crate::end::{Crash, End};
use crate::{Cpu, Entry, Flow};

/// An exit whose handling needs the processor, and so can't borrow data from it like [`Exit`].
enum OwnedExit {
    Halt,
    Shutdown,
    Debug(DebugStop),
    InterruptWindow,
    TprAccess { rip: u64, is_write: bool },
    TprLowered { cr8: u64 },
    Crash(CrashCause),
}

/// Enters the guest once and calls the handler for its exit, for [`step`](crate::run_loop::step).
pub(crate) fn enter<C, H>(cpu: &mut C, handler: &mut H) -> Result<Flow<End<H::Stop>>, vmm_kvm::Error>
where
    C: Cpu,
    H: ExitHandler<C>,
{
    let (exit, interrupted) = match handler.entry() {
        Entry::Guest => (cpu.run()?, Flow::Stop(End::Stopped)),
        Entry::CompleteAccess => (cpu.complete_access()?, Flow::Enter),
    };
    let exit = match exit {
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
        Exit::Halt => OwnedExit::Halt,
        Exit::Shutdown => OwnedExit::Shutdown,
        Exit::Debug(stop) => OwnedExit::Debug(stop),
        Exit::InterruptWindow => OwnedExit::InterruptWindow,
        Exit::TprAccess { rip, is_write } => OwnedExit::TprAccess { rip, is_write },
        Exit::TprLowered { cr8 } => OwnedExit::TprLowered { cr8 },
        Exit::EmulationFailure(failure) => OwnedExit::Crash(CrashCause::Emulation(failure)),
        Exit::InternalError { suberror } => OwnedExit::Crash(CrashCause::Internal(suberror)),
        Exit::EntryFailure { reason } => OwnedExit::Crash(CrashCause::Entry(reason)),
        Exit::Other { reason } => OwnedExit::Crash(CrashCause::UnexpectedExit(reason)),
    };
    let (handled, cause) = match exit {
        OwnedExit::Halt => match handler.halt(cpu) {
            Some(flow) => return Ok(flow.map(End::Asked)),
            None => return Ok(Flow::Stop(End::Halted(Box::new(cpu.report())))),
        },
        OwnedExit::Shutdown => (handler.shutdown(cpu), CrashCause::TripleFault),
        OwnedExit::Debug(stop) => (handler.debug(cpu, stop), CrashCause::UnexpectedExit(KVM_EXIT_DEBUG)),
        OwnedExit::InterruptWindow => return Ok(handler.interrupt_window(cpu).map(End::Asked)),
        OwnedExit::TprAccess { rip, is_write } => {
            return Ok(handler.tpr_access(cpu, rip, is_write).map(End::Asked));
        }
        OwnedExit::TprLowered { cr8 } => return Ok(handler.tpr_lowered(cpu, cr8).map(End::Asked)),
        OwnedExit::Crash(cause) => (None, cause),
    };
    if let Some(flow) = handled {
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
