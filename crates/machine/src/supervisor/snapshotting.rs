//! A snapshot in progress.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use vmm_config::{CommandError, Reply};

use crate::job::Job;
use crate::saved_disk::CopiedDisk;
use crate::saving::SaveError;

/// The answer to a request for a snapshot.
pub(super) type SaveAnswer = Result<Reply, CommandError>;

/// A snapshot that was requested.
#[derive(Debug)]
pub(super) struct Snapshotting {
    pub(super) answer: Sender<SaveAnswer>,
    /// End the machine when it is saved.
    pub(super) stops: bool,
    /// Ids of the disks whose contents are copied.
    pub(super) disks: Vec<String>,
    /// Until the machine is at rest.
    pub(super) files: Vec<OwnedFd>,
    /// From then on.
    pub(super) job: Option<Job<Result<Vec<CopiedDisk>, SaveError>>>,
}
