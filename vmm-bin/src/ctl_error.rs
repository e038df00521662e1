//! Why `vmm-bin ctl` fails.

use std::path::PathBuf;

use vmm_control::ClientError;

/// Why a command wasn't carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("{}: {source}", path.display())]
    Unreachable { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Usage(String),
    /// The directory of a snapshot can't be made.
    #[error(transparent)]
    NewSnapshot(vmm_snapshot::Error),
    /// A snapshot that the monitor has written can't be completed.
    #[error(transparent)]
    Snapshot(vmm_snapshot::Error),
    /// The same, or it has ended without an answer, when the guest has ended too.
    #[error("{error}; the guest has ended, and its snapshot is in {}", directory.display())]
    Kept { directory: PathBuf, error: String },
    #[error("{what}")]
    Host { what: &'static str, source: std::io::Error },
}
