//! Ways through a section's bytes, for the tests of devices.

use vmm_snapshot::{FieldReader, FieldWriter, StateError};

use crate::SavedDevice;

/// The bytes of a device's section.
pub(crate) fn saved(device: &dyn SavedDevice) -> Vec<u8> {
    let mut fields = FieldWriter::new();
    device.save(&mut fields);
    fields.into_bytes()
}

/// Sets a device's state from the bytes of a section.
pub(crate) fn load(device: &dyn SavedDevice, bytes: &[u8]) -> Result<(), StateError> {
    device.load(device.version(), FieldReader::new(bytes))
}

/// Sets the state of `to`, a new device, to that of `from`.
pub(crate) fn reload(from: &dyn SavedDevice, to: &dyn SavedDevice) -> Result<(), StateError> {
    load(to, &saved(from))
}

/// Loads bytes into a new device: either they are refused, and it is unchanged, or they are its state from then on.
pub(crate) fn assert_loads_or_refuses(device: &dyn SavedDevice, bytes: &[u8]) {
    let before = saved(device);
    match load(device, bytes) {
        Ok(()) => assert_eq!(saved(device), bytes),
        Err(_) => assert_eq!(saved(device), before),
    }
}
