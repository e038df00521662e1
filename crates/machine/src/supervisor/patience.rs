//! The supervisor's time limits.

use std::time::Duration;

/// After this time the user is shown what the shutdown is waiting for. A second request then ends the monitor at once.
pub(super) const NOTICE: Duration = Duration::from_secs(1);
/// Time limit for an interrupted start to clean up. It only has sockets' names to remove.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(1);
/// Time limit for a machine's devices to complete their requests and to deliver their last data.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(30);
/// How long a job that is given up may take to report what it leaves unfinished. A user who has asked twice for the end waits no
/// longer than that.
pub(super) const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// How long a guest may take to find its devices on PCI before the log says that it hasn't. A boot takes seconds, and less than a
/// minute in software emulation.
pub(super) const DRIVER_PATIENCE: Duration = Duration::from_secs(120);
