//! The run loop: enter the guest, dispatch its exit, repeat.

use crate::platform::enter;
use crate::{Cpu, End, ExitHandler, Flow};

/// Enters the guest once and dispatches its exit. [`End::Stopped`] means that KVM_RUN was interrupted and the guest may be
/// entered again.
pub(crate) fn step<C, H>(cpu: &mut C, handler: &mut H) -> Result<Flow<End<H::Stop>>, vmm_kvm::Error>
where
    C: Cpu,
    H: ExitHandler<C>,
{
    handler.before_run(cpu);
    let handled = enter(cpu, handler)?;
    Ok(match (handled, handler.after_run(cpu).map(End::Asked)) {
        // An interruption takes precedence over a hold, so that commands get through: a handler without room still has none after
        // the next exit.
        (Flow::Stop(End::Stopped), asked @ Flow::Stop(_)) => asked,
        (handled, after) => handled.and(after),
    })
}

/// Runs `cpu` on this thread until the guest ends or a signal interrupts it. [`Flow::Hold`] has no effect,
/// since nothing could wake the vCPU; use [`VcpuThread`](crate::VcpuThread) for devices that hold the guest.
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
