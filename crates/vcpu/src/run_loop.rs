//! The run loop: enter the guest, dispatch the exit, again.

use crate::platform::answer;
use crate::{Cpu, End, ExitHandler, Flow};

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
