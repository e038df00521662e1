//! Ways through a section's bytes, for the tests of devices.

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use crate::Stateful;

/// The bytes of a device's section.
pub(crate) fn saved<T: Stateful>(device: &T) -> Vec<u8> {
    let mut fields = FieldWriter::new();
    device.save().save(&mut fields);
    fields.into_bytes()
}

/// Sets a device's state from the bytes of a section.
pub(crate) fn load<T: Stateful>(device: &T, bytes: &[u8]) -> Result<(), StateError> {
    let mut fields = FieldReader::new(bytes);
    let state = T::State::load(T::State::VERSION, &mut fields)?;
    fields.finish()?;
    device.load(&state)
}

/// Sets the state of `to`, a new device, to that of `from`.
pub(crate) fn reload<T: Stateful>(from: &T, to: &T) -> Result<(), StateError> {
    load(to, &saved(from))
}

/// Loads bytes into a new device: either they are refused, and it is unchanged, or they are its state from then on.
pub(crate) fn assert_loads_or_refuses<T: Stateful>(device: &T, bytes: &[u8]) {
    let before = saved(device);
    match load(device, bytes) {
        Ok(()) => assert_eq!(saved(device), bytes),
        Err(_) => assert_eq!(saved(device), before),
    }
}
