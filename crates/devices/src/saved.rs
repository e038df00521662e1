//! What a snapshot contains of a device.

use std::fmt;
use std::sync::Arc;

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

/// A device with state of its own, which is a plain value beside the device.
pub trait Stateful: Send + Sync {
    /// The state, and its section's format.
    type State: State;

    /// The current state. For a snapshot, no vCPU is running and no thread of the host's side is using the device.
    fn save(&self) -> Self::State;

    /// Sets the state of a new device that the guest hasn't accessed. Interrupts that may have been lost are raised again.
    ///
    /// # Errors
    /// The device can't be in that state. It is unchanged then.
    fn load(&self, state: &Self::State) -> Result<(), StateError>;
}

/// A [`Stateful`] device whose type is erased: its section.
pub trait SavedDevice: Send + Sync {
    /// [`State::KIND`].
    fn kind(&self) -> &'static str;

    /// [`State::VERSION`].
    fn version(&self) -> u16;

    /// [`State::MIN_READER`].
    fn min_reader(&self) -> u16;

    /// Writes the current state.
    fn save(&self, fields: &mut FieldWriter);

    /// Reads a state of `version` and sets it.
    ///
    /// # Errors
    /// As [`State::load`] and [`Stateful::load`]; or fields are left over, which only a version newer than
    /// [`version`](Self::version) may have.
    fn load(&self, version: u16, fields: FieldReader<'_>) -> Result<(), StateError>;
}

impl<T: Stateful> SavedDevice for T {
    fn kind(&self) -> &'static str {
        T::State::KIND
    }

    fn version(&self) -> u16 {
        T::State::VERSION
    }

    fn min_reader(&self) -> u16 {
        T::State::MIN_READER
    }

    fn save(&self, fields: &mut FieldWriter) {
        Stateful::save(self).save(fields);
    }

    fn load(&self, version: u16, mut fields: FieldReader<'_>) -> Result<(), StateError> {
        let state = T::State::load(version, &mut fields)?;
        if version <= T::State::VERSION {
            fields.finish()?;
        }
        Stateful::load(self, &state)
    }
}

/// What a snapshot contains of a device.
#[derive(Clone, Default)]
pub enum DeviceState {
    /// The kind doesn't say. A machine with this device can't be saved.
    #[default]
    Unknown,
    /// Nothing: the device is after a restore as it was built.
    None,
    /// Its section.
    Saved(Arc<dyn SavedDevice>),
}

impl fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("Unknown"),
            Self::None => f.write_str("None"),
            Self::Saved(device) => f.debug_tuple("Saved").field(&device.kind()).finish(),
        }
    }
}
