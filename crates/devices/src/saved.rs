//! What a snapshot contains of a device.

use std::fmt;
use std::sync::Arc;

use vmm_snapshot::{FormatError, SectionKind, SectionName, State, StateError, StateFile, StateWriter};

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

    /// Adds the current state as a section.
    fn save_to(&self, file: &mut StateWriter, instance: u32);

    /// Takes the state of the section and sets it, as [`Stateful::load`].
    ///
    /// # Errors
    /// There is no such section, or the device can't be in that state. It is unchanged then.
    fn load_from(&self, file: &mut StateFile, instance: u32) -> Result<(), FormatError>;
}

impl<T: Stateful> SavedDevice for T {
    fn kind(&self) -> &'static str {
        T::State::KIND
    }

    fn save_to(&self, file: &mut StateWriter, instance: u32) {
        file.add(instance, &self.save());
    }

    fn load_from(&self, file: &mut StateFile, instance: u32) -> Result<(), FormatError> {
        let state: T::State = file.take(instance)?;
        let kind = const { SectionKind::new(T::State::KIND).expect("State::KIND is a kind of section") };
        self.load(&state)
            .map_err(|source| FormatError::Section { name: SectionName { kind, instance }, source })
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
