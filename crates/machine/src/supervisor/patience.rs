//! How long things may take.

use std::time::Duration;

/// Time after which the user is told what the end waits for, and may ask again to leave it.
pub(super) const NOTICE: Duration = Duration::from_secs(1);
/// Time that an unfinished start has. It has nothing to lose but the names of sockets.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(1);
/// Time that a machine's devices have to finish what they have begun.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(30);
