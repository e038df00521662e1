//! What a device keeps in a snapshot.

use vmm_snapshot::{State, StateError};

use crate::DeviceSection;

/// What a snapshot keeps of a device, apart from its queues, registers and configuration, which the transport saves.
pub enum Persistence<'a> {
    /// Nothing: the device has no state of its own, or none that a driver could notice.
    Stateless,
    /// A state of its own: the device, as a [`Persistent`].
    Own(&'a mut dyn OwnState),
    /// The device can't be saved, for this reason.
    Refused(String),
}

/// A device with a state of its own.
pub trait Persistent {
    /// Its state: a plain value.
    type State: State;

    /// The state of the device, which is stopped and goes on afterwards. May block on the host's storage, so that what the guest
    /// regards as stored is.
    ///
    /// # Errors
    /// Why it can't be saved now.
    fn save(&mut self) -> Result<Self::State, String>;

    /// Gives a device that no driver has used a state, which may come from anybody: whatever the device assumes is checked before the
    /// first change.
    ///
    /// # Errors
    /// This device can't have the state, and is unchanged.
    fn load(&mut self, state: Self::State) -> Result<(), StateError>;
}

/// A [`Persistent`] whose state's type isn't known.
pub trait OwnState {
    /// [`Persistent::save`] as a section.
    ///
    /// # Errors
    /// As there.
    fn save(&mut self) -> Result<DeviceSection, String>;

    /// [`Persistent::load`] from a section.
    ///
    /// # Errors
    /// As there, or the section isn't one of this device's state.
    fn load(&mut self, section: &DeviceSection) -> Result<(), StateError>;
}

impl<T: Persistent> OwnState for T {
    fn save(&mut self) -> Result<DeviceSection, String> {
        Persistent::save(self).map(|state| DeviceSection::of(&state))
    }

    fn load(&mut self, section: &DeviceSection) -> Result<(), StateError> {
        Persistent::load(self, section.state()?).map_err(|error| error.within(T::State::KIND))
    }
}
