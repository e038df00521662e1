//! Has a machine saved, on the jobs' thread: the event loop goes on, and answers requests about the machine.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};

use vmm_config::{CommandError, ErrorCode, Reply, SnapshotCommand, SnapshotReply};

use super::Supervisor;
use super::patience::END_PATIENCE;
use super::snapshotting::{SaveAnswer, Snapshotting};
use crate::Ending;
use crate::job::Progress;
use crate::machine::Machine;
use crate::run_state::RunState;

impl Supervisor {
    /// Has the machine saved to `files`, which are those of state, memory and the wanted disks, as soon as it is at rest. Returns what receives the
    /// answer. If it fails, the files are left: closing them may wait for storage.
    pub(super) fn begin_snapshot(
        &mut self,
        files: &mut Vec<OwnedFd>,
        wanted: &SnapshotCommand,
        machine: &mut Machine,
    ) -> Result<Receiver<SaveAnswer>, CommandError> {
        if self.snapshot.is_some() {
            return Err(CommandError::new(ErrorCode::Busy, "another snapshot is being written; try again"));
        }
        let SnapshotCommand { stop, disks } = wanted.clone();
        let needed = 2 + disks.len();
        if files.len() != needed {
            let what = if disks.is_empty() { "state and memory" } else { "state, memory and disks" };
            let message = format!("a snapshot needs {needed} files, for {what}, not {}", files.len());
            return Err(CommandError::new(ErrorCode::InvalidRequest, message));
        }
        machine.begin_saving(|change| self.report_change(change))?;
        let (answer, answers) = channel();
        self.snapshot =
            Some(Snapshotting { answer, stops: stop, disks, files: std::mem::take(files), job: None });
        self.continue_snapshot(machine);
        Ok(answers)
    }

    /// Starts to write the snapshot that was requested, if the machine is at rest now.
    pub(super) fn continue_snapshot(&mut self, machine: &Machine) {
        if !matches!(machine.state, RunState::Saving { .. }) {
            return;
        }
        let Some(snapshot) = self.snapshot.as_mut().filter(|snapshot| snapshot.job.is_none()) else { return };
        let (files, disks) = (std::mem::take(&mut snapshot.files), std::mem::take(&mut snapshot.disks));
        let saving = machine.saving();
        let job = self.start_job("saving the machine", move |progress: &Progress| {
            saving.write(files, &disks, progress)
        });
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.job = Some(job);
        }
    }

    /// If the snapshot is written, or can't be, answers the request. The machine then goes on, or ends.
    pub(super) fn finish_snapshot(&mut self, machine: &mut Machine) -> Option<Ending> {
        let written = self.snapshot.as_mut()?.job.as_mut()?.take()?;
        let Snapshotting { answer, stops, .. } = self.snapshot.take()?;
        let saved = match written {
            Ok(Ok(disks)) if disks.is_empty() => Ok(Reply::Done),
            Ok(Ok(disks)) => {
                let modified_ns = disks.iter().map(|disk| disk.modified_ns).collect();
                Ok(Reply::Snapshot(SnapshotReply { modified_ns }))
            }
            Ok(Err(error)) => {
                let code =
                    if error.is_refusal() { ErrorCode::NotSaveable } else { ErrorCode::SnapshotFailed };
                Err(CommandError::new(code, error.to_string()))
            }
            Err(_) => {
                let message = "the thread that saves has panicked, which is a bug in the monitor";
                Err(CommandError::new(ErrorCode::SnapshotFailed, message))
            }
        };
        let ends = stops && saved.is_ok();
        // The request was answered already if the machine has ended.
        let _ = answer.send(saved);
        if ends {
            return Some(Ending::Saved);
        }
        machine.end_saving(|change| self.report_change(change));
        self.answer_completed(machine);
        None
    }

    /// Gives up a snapshot of a machine that ends. Returns whether nothing refers to the machine any more.
    pub(super) fn give_up_snapshot(&mut self) -> bool {
        let Some(Snapshotting { job: Some(mut job), .. }) = self.snapshot.take() else { return true };
        job.progress().cancel();
        matches!(self.finish_job(&mut job, END_PATIENCE), Ok(Some(_)))
    }
}
