//! The end of a machine whose vCPUs have stopped, or of the restart that would have followed.

use tracing::warn;

use super::last_reports::LastReports;
use super::patience::END_PATIENCE;
use super::{RunError, Supervisor};
use crate::build_error::BuildError;
use crate::console::Lines;
use crate::delivery::deliver_and_close_all;
use crate::job::Job;
use crate::machine::Machine;
use crate::virtio::OpenDevice;

impl Supervisor {
    /// Stops and closes the devices of a machine whose vCPUs have ended. Returns what the guest may have lost.
    pub(super) fn close(&mut self, stopped: Machine) -> Vec<String> {
        self.driver_hint.give(&stopped);
        let (last, reports) = LastReports::of(&stopped);
        let lost = self.finish("closing files", move |progress| stopped.close(progress, &reports));
        lost.into_iter().flatten().for_each(|line| warn!("{line}"));
        last.log(&mut self.device_log)
    }

    /// Closes devices that have stopped, for which there is no next machine, as [`close`](Self::close) does.
    pub(super) fn close_devices(&mut self, devices: Vec<OpenDevice>) {
        let lost = self.finish("closing files", move |progress| deliver_and_close_all(devices, progress));
        lost.into_iter().flatten().for_each(|line| warn!("{line}"));
    }

    /// Leaves a machine whose vCPUs can't be stopped, and still access the devices on its bus. Returns what the guest may have lost.
    pub(super) fn leave(&mut self, machine: Machine) -> Vec<String> {
        let (last, _) = LastReports::of(&machine);
        std::mem::forget(machine);
        last.log(&mut self.device_log)
    }

    /// Ends a restart: waits until the devices have stopped, and closes what has been built. Returns what the guest may have lost.
    pub(super) fn abandon_restart(
        &mut self,
        job: &mut Job<Result<(Machine, Lines), BuildError>>,
        last: LastReports,
    ) -> Result<Vec<String>, RunError> {
        let finished = self.finish_job(job, END_PATIENCE);
        let losses = last.log(&mut self.device_log);
        match finished {
            // Its devices report again.
            Ok(Some(Ok((machine, _)))) => Ok(self.close(machine)),
            Ok(Some(Err(failed))) => {
                self.close_devices(failed.devices);
                Ok(losses)
            }
            Ok(None) => Ok(losses),
            Err(error) => Err(RunError { error, losses }),
        }
    }
}
