//! The error of a device that can't be saved.

/// Why a device can't be saved. The device is unchanged, and can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {reason}")]
pub struct SaveError {
    /// The device's id.
    pub device: String,
    /// What prevents it.
    pub reason: String,
}
