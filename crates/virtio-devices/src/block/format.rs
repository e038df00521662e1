//! Messages for a config that doesn't match the file's format.

use std::path::Path;

use crate::image_format::ImageFormat;

/// How to fix a config without "format"; printed after the file's path.
pub(super) fn ask(found: ImageFormat, path: &Path) -> String {
    let noun = found.noun();
    match found {
        ImageFormat::Qcow2 => {
            format!("looks like {noun}: add \"format\": \"qcow2\", or \"raw\" if its bytes are the disk's")
        }
        ImageFormat::Luks(_) => {
            let decrypt = found.conversion(path, "qcow2");
            format!("looks like {noun}: add \"format\": \"raw\" if the guest unlocks it, or {decrypt}")
        }
        ImageFormat::Other(..) | ImageFormat::Foreign(_) => {
            let convert = found.conversion(path, "qcow2");
            format!(
                "looks like {noun}, which isn't supported: {convert}, or add \"format\": \"raw\" if its bytes are the disk's"
            )
        }
    }
}

/// What to do with an image that is configured as "raw".
pub(super) fn remedy(found: ImageFormat, path: &Path) -> String {
    match found {
        ImageFormat::Qcow2 => "set \"format\": \"qcow2\"".to_owned(),
        ImageFormat::Luks(_) => {
            let decrypt = found.conversion(path, "qcow2");
            format!("set \"format\": \"raw\" if the guest unlocks it, or {decrypt}")
        }
        ImageFormat::Other(..) | ImageFormat::Foreign(_) => found.conversion(path, "qcow2"),
    }
}
