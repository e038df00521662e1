//! Work that was done elsewhere.

use crate::Ending;

/// What became of work that the [`Supervisor`](crate::Supervisor) had done elsewhere.
#[derive(Debug)]
pub enum Offloaded<T> {
    /// It is done.
    Done(T),
    /// Somebody wanted to end the monitor before it was.
    Ended(Ending),
}
