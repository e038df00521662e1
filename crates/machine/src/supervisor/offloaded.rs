//! The result of offloaded work.

use crate::Ending;

/// The result of [`Supervisor::offload`](crate::Supervisor::offload).
#[derive(Debug)]
pub enum Offloaded<T> {
    /// The work's result.
    Done(T),
    /// The user ended the monitor before the work was done.
    Ended(Ending),
}
