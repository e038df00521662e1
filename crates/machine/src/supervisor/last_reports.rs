//! What the devices of a machine report when they stop.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::DeviceLog;
use crate::machine::Machine;
use crate::virtio::LastReport;

/// The reports of a machine's devices.
#[derive(Debug)]
pub(super) struct LastReports {
    /// The ids of the devices of which the guest can lose something.
    may_lose: Vec<String>,
    reported: Receiver<LastReport>,
}

impl LastReports {
    /// For a machine that is to be stopped with the sender.
    pub(super) fn of(machine: &Machine) -> (Self, Sender<LastReport>) {
        let (reports, reported) = channel();
        let may_lose = machine.virtio.ids_that_may_lose().map(str::to_owned).collect();
        (Self { may_lose, reported }, reports)
    }

    /// Logs the reports that have been sent. Returns what the guest may have lost, a message for each device.
    pub(super) fn log(self, log: &mut DeviceLog) -> Vec<String> {
        let Self { mut may_lose, reported } = self;
        let mut losses = Vec::new();
        for LastReport { id, notices, loss } in reported.try_iter() {
            log.log(&id, None, notices);
            may_lose.retain(|other| *other != id);
            losses.extend(loss.map(|loss| format!("device \"{id}\": {loss}")));
        }
        // Not reported: a device that the monitor no longer waits for, or whose thread has panicked.
        losses.extend(may_lose.into_iter().map(|id| {
            format!("device \"{id}\": it hasn't stopped in order, and what it had completed may be lost")
        }));
        losses
    }
}
