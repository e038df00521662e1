//! In place of qcow2 in a build without that feature: no image can be opened.

use vmm_virtio::DeviceError;

use super::file::DiskFile;
use super::image::Image;
use crate::image_format::ImageFormat;
use crate::left_out::left_out;
use crate::place::{Access, Place};

/// # Errors
/// Always.
pub(super) fn open(
    _file: DiskFile,
    place: Place<'_>,
    _access: Access,
    _backing: &[Place<'_>],
) -> Result<(Box<dyn Image>, u64), DeviceError> {
    Err(left_out("format", "qcow2", &ImageFormat::Qcow2.conversion(place.path, "raw")))
}
