//! The error for what a build has left out.

use vmm_virtio::DeviceError;

/// The error if `field` asks for the cargo feature `feature`, which this build lacks. `instead` is what to change in the config.
pub(crate) fn left_out(field: &str, feature: &str, instead: &str) -> DeviceError {
    DeviceError::config(
        field,
        format!("built without the feature \"{feature}\": {instead}, or use a build with it"),
    )
}
