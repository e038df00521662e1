//! How long things may take.

use std::time::Duration;

/// After this time the user is told what the end is waiting for; a second request ends the monitor without it.
pub(super) const NOTICE: Duration = Duration::from_secs(1);
/// Time that an unfinished start has. It has nothing to lose but the names of sockets.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(1);
/// Time that a machine's devices have to finish what they have begun.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(30);
